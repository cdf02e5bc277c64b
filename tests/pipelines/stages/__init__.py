"""Small stages: what they did, and how they are to end."""

CALLS = []
ERRORS = {}
