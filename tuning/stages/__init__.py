"""Stages of a search: each a function from a configuration and folders to a new folder."""
