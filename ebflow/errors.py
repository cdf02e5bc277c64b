"""Errors that a user can cause and mend."""

__all__ = ["BadInput", "NonFinite"]


class BadInput(ValueError):
    """One line that says what is wrong where: what was found, and what was expected.

    Raised at a boundary (configuration, data, checkpoint) before anything is written.
    """


class NonFinite(ArithmeticError):
    """A loss or log-density became infinite or NaN; the message says where and what to change."""
