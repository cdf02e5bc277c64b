"""Named flows, as functions of shape and depth.

They are nets of dense matrices, or the paper's convolutions, with activations between; nets of
couplings, Glow in the form of the flow's paper among them; and of autoregressive layers. Each has

* ``shape``, the shape of an event, of D elements: two or more where halves move each other;
* ``context``, the number of elements of a context, 0 without;
* ``base``, the density of latents; None: N(0, I);
* ``generator``, where the start comes from; None: seed 0, unless the net says otherwise;
* ``dtype``, the parameters' type; None: torch's default.
"""

__all__ = ["ACTIVATIONS", "ARCHITECTURES", "LEARNED", "LINEAR", "autoregressive", "convolutional",
           "coupling", "dense", "glow", "structured"]  # fmt: skip

from .couplings import coupling, glow
from .linear import ACTIVATIONS, LEARNED, LINEAR, convolutional, dense, structured
from .masked import autoregressive

ARCHITECTURES = {
    f.__name__: f for f in (autoregressive, convolutional, coupling, dense, glow, structured)
}
