"""What a compiled flow leaves to Python."""

__all__ = ["eager"]

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Keeps a function out of compiled graphs, as ``torch.compiler.disable`` does.

    That imports the compiler at once, which takes as long as to import torch; this leaves it to
    who compiles.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return call
