"""How many samples a score needs: exponents and claims."""
