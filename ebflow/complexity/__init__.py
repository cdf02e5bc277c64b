"""How many samples a score needs: instances, learners, errors, samplers, and what is fitted."""
