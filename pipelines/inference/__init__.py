"""Commands on a trained flow: score, sample, impute, export."""

REFERENCE = "reference.safetensors"
"""File of log-densities of known rows in the folder of a checkpoint: see ``reference``."""
