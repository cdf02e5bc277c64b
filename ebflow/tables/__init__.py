"""Tables in memory: frames of any library, their schema, and batches of their rows."""

__all__ = ["ArrayLike", "Arrays", "Batch", "Batched", "Column", "Columns", "Completed",
           "Detector", "Gaussian", "Law", "Rows", "Split"]  # fmt: skip

from .batches import Batch, Batched, Split
from .column import Column
from .completion import Completed, Gaussian, Law
from .detect import Detector
from .frames import ArrayLike
from .rows import Arrays, Rows
from .schema import Columns
