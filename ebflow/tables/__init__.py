"""Tables in memory: frames of any library, their schema, and batches of their rows."""

__all__ = ["Column", "Columns", "Detector"]

from .column import Column
from .detect import Detector
from .schema import Columns
