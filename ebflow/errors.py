"""Errors that a user can cause and fix."""

import sys
import warnings
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass

HALF = 400  # Characters of each end of a long message that are printed

# Packages whose functions call ours on behalf of a user, such as ``torch.enable_grad``.
CALLED_THROUGH = ("ebflow", "joblib", "sklearn", "torch")


@dataclass(eq=False)
class BadInput(ValueError):
    """Invalid input: an option, or a file or a value in it. Nothing was written.

    Printed as ``FILE, OPTION, column 'NAME', row N: found …, expected …. HINT``.
    """

    problem: str | None = None  #: What is wrong, if ``found`` and ``expected`` do not show it
    _: KW_ONLY
    #: As the user types it: ``--train.lr``, or the argument of a function
    option: str | None = None
    file: object = None
    column: str | int | None = None  #: The name of a column, or the index of one that has no name
    row: int | None = None
    found: object = None
    expected: object = None
    hint: str | None = None

    def __str__(self) -> str:
        column = "column {!r}" if isinstance(self.column, str) else "feature {}"
        place = (self.file, "{}"), (self.option, "{}"), (self.column, column), (self.row, "row {}")
        said = (self.problem, "{}"), (self.found, "found {}"), (self.expected, "expected {}")
        sentence = ": ".join(filter(None, map(_phrases, (place, said))))
        return printable(". ".join(filter(None, [sentence, self.hint])))


class NonFinite(ArithmeticError):
    """An infinite or NaN loss or log-density; the message names where, and what to change."""


def printable(text: str) -> str:
    """Returns a text in one line of printable characters; the middle of a long one is omitted."""
    words = " ".join(text.split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
    return shown if len(shown) <= 2 * HALF else f"{shown[: HALF - 2]} … {shown[2 - HALF :]}"


def warn(message: str) -> None:
    """Warns at the line that called the library, directly or through a decorator."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in CALLED_THROUGH:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)


def _phrases(parts: Iterable[tuple[object, str]]) -> str:
    """Returns the parts that are not None, each in its phrase."""
    return ", ".join(phrase.format(part) for part, phrase in parts if part is not None)
