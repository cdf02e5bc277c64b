"""What a command prints to, so that who stops reading stops nothing else."""

import io
import sys
from typing import TextIO


class Patient(io.FileIO):
    """A file of which a write that fails, as to a pipe that nobody reads, is lost and no error.

    Raised wherever something is printed, it would break off what a thread has half done.
    """

    def write(self, data: bytes) -> int:
        """Returns how many bytes were taken."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Lets this process go on when nobody reads its output or its errors any more."""
    sys.stdout, sys.stderr = _patient(sys.stdout), _patient(sys.stderr)


def _patient(stream: TextIO | None) -> TextIO | None:
    if stream is None:
        return None
    stream.flush()
    raw = Patient(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
    )
