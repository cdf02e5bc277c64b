"""What nets share: their first layer, halves that move each other, contexts, and their specs."""

__all__ = ["conditioned", "finished", "flattened", "halved"]

import copy
import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch
from torch import nn

from ..bijections import Bijection, ConditionalAffine, Coupling, Reshape, ScaleShift, Spline
from ..flow import Flow
from ..networks import Interleaved

START = ("shape", "base", "dtype", "generator", "sign", "bias", "noise", "calibrated")
"""Options that a flow, its weights and its base tell: of these a spec keeps the shape alone."""


def halved(
    size: int,
    net: Callable[..., nn.Module],
    transform: ScaleShift | Spline,
    context: int,
    *,
    shifts: Callable[..., nn.Module] | None = None,
    flip: bool = False,
) -> Coupling:
    """Returns a coupling of two halves of a vector's elements, or of an image's channels.

    Arguments:
        size: The number of elements, or of channels.
        net: From the sizes of its input and output to a conditioner.
        transform: What it parametrizes.
        context: The number of elements of a context.
        shifts: Makes a conditioner of its own for shifts; None: one network gives all.
        flip: Whether the second half passes.
    """
    sizes = (size // 2, size - size // 2)
    passed, moved = sizes[::-1] if flip else sizes
    if shifts is None:
        conditioner = net(passed + context, moved * transform.count)
    else:
        scales = net(passed + context, moved)
        conditioner = Interleaved(scales, shifts(passed + context, moved))
    return Coupling(sizes, conditioner, transform, flip=flip, context=context)


def flattened(shape: Sequence[int]) -> list[Bijection]:
    """Returns the layer that makes rows of events; none if they are rows."""
    return [Reshape(tuple(shape), (math.prod(shape),))] if len(shape) > 1 else []


def conditioned(
    shape: tuple[int, ...], context: int, generator: torch.Generator | None
) -> list[Bijection]:
    """Returns the layer by which a context enters behind a linear one; none without context."""
    return [ConditionalAffine(shape, context, generator=generator)] if context else []


def finished(
    architecture: Callable[..., Flow], layers: Sequence[Bijection], given: dict[str, Any]
) -> Flow:
    """Returns the flow of these layers, with the spec that rebuilds it.

    Arguments:
        architecture: The function that made the layers; all but ``START`` of its options are kept.
        layers: The layers.
        given: The options by name, as the variables of the call.
    """
    names = [name for name in signature(architecture).parameters if name not in START]
    options = {name: given[name] for name in names}
    shape, context, dtype = given["shape"], given["context"], given["dtype"]
    spec = {"architecture": architecture.__name__, "shape": list(shape), "options": options}
    base = copy.deepcopy(given["base"])  # a base that is trained is the flow's own
    flow = Flow(shape, layers, base=base, context=context, spec=spec)
    return flow.to(dtype or torch.get_default_dtype())
