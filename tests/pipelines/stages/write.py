"""Of a test."""

from tests.pipelines.stages import CALLS, ERRORS


def write(value, location, *, output, work, run):
    """Writes a number; fails, or is interrupted, as told."""
    CALLS.append("write")
    error = ERRORS.get("write")
    if error is not None:
        (work / "half").write_text("half done")
        raise error
    run.log_metrics({"value": value.draws})
    (output / "value.txt").write_text(str(value.draws))
