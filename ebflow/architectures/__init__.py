"""Named flows, as functions of shape and depth."""

__all__ = ["ARCHITECTURES", "convolutional", "dense", "glow", "multimodal", "planar"]

from .convolutional import convolutional
from .dense import dense
from .glow import glow
from .multimodal import multimodal
from .planar import planar

ARCHITECTURES = {f.__name__: f for f in (convolutional, dense, glow, multimodal, planar)}
