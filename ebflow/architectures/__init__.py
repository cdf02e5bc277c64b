"""Named flows, as functions of shape and depth.

There are networks of dense or structured matrices or convolutions with activations, of couplings
(Glow among them), of autoregressive layers, and of pixels. Each function has

* ``shape``, the shape of an event of D elements; couplings need two or more;
* ``context``, the number of elements of a context; 0: no context;
* ``base``, the density of latents; None: N(0, I);
* ``generator``, the source of initial weights; None: seed 0, unless the function has another
  default;
* ``dtype``, the dtype of the parameters; None: torch's default.
"""

__all__ = ["ACTIVATIONS", "ARCHITECTURES", "STRUCTURES", "autoregressive", "convolutional",
           "coupling", "dense", "glow", "pixelcnn", "structured"]  # fmt: skip

from .couplings import coupling, glow
from .linear import ACTIVATIONS, convolutional, dense
from .masked import autoregressive
from .pixels import pixelcnn
from .structured import STRUCTURES, structured

ARCHITECTURES = {
    f.__name__: f
    for f in (autoregressive, convolutional, coupling, dense, glow, pixelcnn, structured)
}
"""Architectures by name. ``ebflow.fit`` and ``ebflow.load`` know those that users add."""
