"""Searches around the density pipeline: what a trial trains, over what, and for which goals."""
