"""Networks of exact probabilities of grey levels, for images of integers."""

import math
from collections.abc import Sequence

import torch

from ..bases import Base, StandardNormal
from ..bijections import PixelCNN, Reshape
from ..flow import Flow
from ..randomness import generator as derive
from .parts import finished


def pixelcnn(
    shape: Sequence[int],
    *,
    values: int | None = None,
    counts: Sequence[float] | None = None,
    hidden: int = 32,
    depth: int = 9,
    context: int = 0,
    base: Base | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates a layer that gives every element of an image the exact probability of its level.

    Elements are integers plus noise in [0, 1), without a logit or a normalization. The density is
    constant between integers, so likelihoods alone train the flow, and its score is 0. A sample
    takes as many steps as the image has pixels.

    Source: Pixel Recurrent Neural Networks (van den Oord et al., 2016), arXiv:1601.06759.

    Arguments:
        shape: The shape (C, H, W) of an event.
        values: The number of levels of an element; ``fit`` sets it.
        counts: The number of elements of each level, for the start alone.
        hidden: The channels of the residual blocks.
        depth: The number of residual blocks.

    Raises:
        ValueError: without ``values``, or if the base is not N(0, I).
    """
    if values is None:
        expected = "images of integers, and a likelihood as the objective"
        raise ValueError(f"values: found None, expected the number of levels: {expected}")
    if not isinstance(base, StandardNormal | None):
        raise ValueError(f"base: found {type(base).__name__}, expected N(0, I)")
    generator = generator or derive(0, "weights")
    layer = PixelCNN(shape, values, counts=counts, hidden=hidden, depth=depth, context=context,
                     generator=generator)  # fmt: skip
    layers = [layer, Reshape(shape, (math.prod(shape),))]
    return finished(pixelcnn, layers, locals())
