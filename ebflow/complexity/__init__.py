"""The number of samples that learning a score needs: instances, networks, errors."""
