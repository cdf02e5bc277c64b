"""Of a test."""

from ebflow.errors import BadInput
from tests.pipelines.stages import CALLS, ERRORS


def write(value, source, *, run):
    """Writes a number; fails, or is interrupted, as told."""
    CALLS.append("write")
    error = ERRORS.get("write")
    run.reporter.progress(0.0, "writes")
    if error is not None:
        if not isinstance(error, BadInput):
            (run.work / "half").write_text("half done")
        raise error
    run.log_metrics({"value": value.samples})
    (run.output / "value.txt").write_text(str(value.samples))
