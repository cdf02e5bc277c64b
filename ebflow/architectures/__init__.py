"""Named flows, as functions of shape and depth."""

__all__ = ["ARCHITECTURES", "autoregressive", "convolutional", "coupling", "dense", "glow",
           "structured"]  # fmt: skip

from .autoregressive import autoregressive
from .convolutional import convolutional
from .coupling import coupling, glow
from .dense import dense, structured

ARCHITECTURES = {
    f.__name__: f for f in (autoregressive, convolutional, coupling, dense, glow, structured)
}
