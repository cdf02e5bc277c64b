"""The stages: each an importable function from a configuration and folders to a folder."""
