"""A stage with the name of another."""
