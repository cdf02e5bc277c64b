"""Of a test."""

from tests.pipelines.stages import ERRORS


def mend(config, *, output, work, run):
    """Lets others end well from now on."""
    ERRORS.clear()
    (output / "value.txt").write_text("mended")
