"""Of a test."""

from tests.pipelines.stages import ERRORS


def mend(config, *, run):
    """Lets others end well from now on."""
    ERRORS.clear()
    (run.output / "value.txt").write_text("mended")
