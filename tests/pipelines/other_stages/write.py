"""Of a test."""


def write(config, *, run):
    """Writes a text."""
    (run.output / "value.txt").write_text("another")
