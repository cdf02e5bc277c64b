"""What is asked of a trained flow: scores, samples, what is missing, a graph, a service."""

REFERENCE = "reference.safetensors"
"""File of log-densities of known rows in the folder of a checkpoint: see ``reference``."""
