"""Unnormalised log-densities trained by matching their score."""

__version__ = "0.1.0"

__all__ = ["Flow", "architectures", "checkpoint", "divergence", "evaluate", "load", "objectives",
           "randomness", "sampling"]  # fmt: skip

from importlib import import_module

_CONTENT = {"Flow": "flow", "load": "checkpoint"}


def __getattr__(name: str) -> object:
    """Imports what is asked for when it is asked for: ``import ebflow`` needs no torch."""
    if name in _CONTENT:
        return getattr(import_module(f"ebflow.{_CONTENT[name]}"), name)
    if name in __all__:
        return import_module(f"ebflow.{name}")
    raise AttributeError(f"module 'ebflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
