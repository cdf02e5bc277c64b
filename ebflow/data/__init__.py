"""Data sets: where rows come from, how they are prepared, and how they reach a flow."""
