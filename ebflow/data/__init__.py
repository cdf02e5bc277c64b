"""Data sets: where rows come from, how they are prepared, and how they reach a flow."""

BUDGET = 1 << 30
"""Bytes of rows that are held in memory at most."""
