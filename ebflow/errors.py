"""Errors that a user can cause and fix."""

__all__ = ["BadInput", "NonFinite", "line"]

MOST_CHARACTERS = 800


class BadInput(ValueError):
    """Invalid input: a configuration, data or a checkpoint. Nothing was written.

    Arguments:
        text: One line: what is wrong, where, and what to do; made printable by :func:`line`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(line(text))


class NonFinite(ArithmeticError):
    """An infinite or NaN loss or log-density; the message says where, and what to change."""


def line(text: str) -> str:
    """Returns a text in one line of printable characters; the middle of a long one is left out."""
    words = " ".join(text.split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
    if len(shown) <= MOST_CHARACTERS:
        return shown
    half = MOST_CHARACTERS // 2 - 2
    return f"{shown[:half]} … {shown[-half:]}"
