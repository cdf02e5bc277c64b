"""Of a test."""

from tests.pipelines.stages import CALLS


def double(config, folder, *, run):
    """Doubles the number."""
    CALLS.append("double")
    value = int((folder / "value.txt").read_text())
    (run.output / "value.txt").write_text(str(2 * value))
