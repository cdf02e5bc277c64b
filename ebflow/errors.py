"""Errors that a user can cause and mend."""

__all__ = ["BadInput", "NonFinite", "line"]

MOST_CHARACTERS = 800


class BadInput(ValueError):
    """One line that says what is wrong where: what was found, and what was expected.

    Raised at a boundary (configuration, data, checkpoint) before anything is written.

    Arguments:
        text: The line. What of it came from a file is made fit to print, as by :func:`line`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(line(text))


class NonFinite(ArithmeticError):
    """A loss or log-density became infinite or NaN; the message says where and what to change."""


def line(text: str) -> str:
    """Returns a text on one line, of which all characters are printed and too many are cut out."""
    words = " ".join(text.split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
    if len(shown) <= MOST_CHARACTERS:
        return shown
    half = MOST_CHARACTERS // 2 - 2
    return f"{shown[:half]} … {shown[-half:]}"
