"""Tables in memory: frames of any library, their schema, and batches of their rows.

The schema needs no PyTorch. Rows and their batches, which do, are in modules of their own.
"""

__all__ = ["ArrayLike", "Column", "Columns", "Detector", "detect_columns"]

from .column import Column
from .detect import Detector, detect_columns
from .frames import ArrayLike
from .schema import Columns
