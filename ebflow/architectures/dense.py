"""The paper's FC model."""

__all__ = ["dense"]

import math
from collections.abc import Sequence
from functools import partial

import torch

from ..bijections import Bijection, Dense, Reshape, SmoothLeakyReLU
from ..flow import Flow
from .starts import start_of


def dense(
    shape: Sequence[int],
    *,
    depth: int = 2,
    alpha: float = 0.3,
    residual: bool = False,
    sign: float = 1.0,
    bias: float = 0.0,
    generator: torch.Generator | None = None,
    noise: float = 0.0,
    calibrated: bool = False,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``depth`` dense layers with smooth leaky ReLUs between: the paper's FC model.

    Every W starts as ``sign`` · I and every b as ``bias``; the paper has −1 and 1. It has
    ``depth`` · (D² + D) parameters: 1,230,880 for MNIST (D = 784, depth 2).

    Source: Chao et al. (2023), arXiv:2305.15267; the net of Gresele et al. (2020),
    arXiv:2006.15090.

    Arguments:
        shape: The shape of an event; D is its number of elements.
        depth: The number of dense layers L.
        alpha: The slope of the activations at −∞.
        residual: Whether activations add their input.
        sign: The factor of the identity at the start.
        bias: The start of every offset.
        generator: Where the noise of the start comes from.
        noise: The standard deviation of the start's noise, times √D for an entry of W.
        calibrated: Whether each W behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off: whitened data then start with latents
            of zero mean and unit variance, and a likelihood near the Gaussian's.
        dtype: The parameters' type; torch's default otherwise.
    """
    size = math.prod(shape)
    start = partial(start_of, sign=sign, bias=bias, noise=noise, generator=generator)
    layers: list[Bijection] = [Reshape(tuple(shape), (size,))] if len(shape) > 1 else []
    for index in range(depth):
        if index:
            layers.append(SmoothLeakyReLU(alpha, residual=residual))
        behind = layers[-1] if index and calibrated else None
        layers.append(Dense(*start(torch.eye(size), behind)))
    options = {"depth": depth, "alpha": alpha, "residual": residual}
    spec = {"architecture": "dense", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())
