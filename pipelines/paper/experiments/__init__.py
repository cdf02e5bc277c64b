"""Experiments of the paper, one a file."""
