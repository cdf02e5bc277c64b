"""The study of the number of samples that a score needs: exponents and claims."""
