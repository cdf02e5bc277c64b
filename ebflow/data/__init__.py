"""Data sets on disk, and the preprocessing that stands in front of a flow."""
