"""Rows in memory: from what callers hand in to checked splits, completed where rows lack some."""

__all__ = ["ArrayLike", "Arrays", "Completed", "Gaussian", "Law", "Rows", "as_contexts",
           "as_frame", "as_rows", "as_tensor"]  # fmt: skip

from .completion import Completed, Gaussian, Law
from .frames import ArrayLike, as_contexts, as_frame, as_rows, as_tensor
from .rows import Arrays, Rows
