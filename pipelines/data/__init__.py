"""Data in files: sources, their columns, splits, and prepared folders."""
