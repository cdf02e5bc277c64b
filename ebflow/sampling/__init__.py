r"""Sampling by a score alone, and the elements of images that are missing.

Langevin's discretized diffusion

.. math:: x \leftarrow x + \varepsilon\, s(x) + \sqrt{2 \varepsilon}\, z, \qquad z \sim N(0, I),

has nearly the density as its distribution if :math:`\varepsilon` is small. For a Gaussian with
precision P, the mean is exact for every stable step, and the covariance is
:math:`P^{-1} (I - \varepsilon P / 2)^{-1}`. A flow needs no such chain for exact samples
(``Flow.sample``). It needs one for samples of some elements of an image given the others.

A *sampler* is a function ``(density, x, *, generator, free) -> x``. It moves the elements of
``x``, with shape (B, *event), where the boolean tensor ``free`` is True, and holds the others.
Samplers compute without gradients, one score a step: 2 L GEMMs of a dense flow.
"""

__all__ = [
    "Inpainted",
    "Sampler",
    "adaptive_langevin",
    "annealed_langevin",
    "imputation_error",
    "inpaint",
    "langevin",
    "largest_curvature",
]

from .adaptive import adaptive_langevin
from .inpainting import Inpainted, imputation_error, inpaint
from .langevin import Sampler, annealed_langevin, langevin, largest_curvature
