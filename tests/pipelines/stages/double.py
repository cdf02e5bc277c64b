"""Of a test."""

from tests.pipelines.stages import CALLS


def double(config, data, *, run):
    """Doubles the number."""
    CALLS.append("double")
    value = int((data / "value.txt").read_text())
    (run.output / "value.txt").write_text(str(2 * value))
