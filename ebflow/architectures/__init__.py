"""Named flows, as functions of shape and depth."""

__all__ = ["ARCHITECTURES", "autoregressive", "convolutional", "coupling", "dense", "glow",
           "structured"]  # fmt: skip

from .coupling import autoregressive, coupling, glow
from .linear import convolutional, dense, structured

ARCHITECTURES = {
    f.__name__: f for f in (autoregressive, convolutional, coupling, dense, glow, structured)
}
