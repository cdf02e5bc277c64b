"""Parts that architectures share: the first layer, couplings, contexts, and specifications."""

import copy
import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ..bijections import Bijection, ConditionalAffine, Coupling, Dense, Reshape, ScaleShift, Spline
from ..flow import Flow
from ..networks import Interleaved

# Options that a spec leaves out: they only affect initial weights, or are stored elsewhere.
START = ("shape", "base", "dtype", "generator", "sign", "bias", "noise", "calibrated",
         "counts")  # fmt: skip


def halved(
    size: int,
    network: Callable[..., nn.Module],
    transform: ScaleShift | Spline,
    context: int,
    *,
    shifts: Callable[..., nn.Module] | None = None,
    flip: bool = False,
) -> Coupling:
    """Returns a coupling of two halves of a vector's elements, or of an image's channels.

    ``network`` creates a conditioner from the sizes of its input and output. One conditioner has
    all parameters of ``transform``. With ``shifts`` that one has the log-scales of a
    ``ScaleShift``, and one by ``shifts`` has the shifts. With ``flip`` the second half is
    unchanged instead of the first.
    """
    sizes = (size // 2, size - size // 2)
    passed, moved = sizes[::-1] if flip else sizes
    if shifts is not None:
        networks = [create(passed + context, moved) for create in (network, shifts)]
        conditioner = Interleaved(*networks)
    else:
        conditioner = network(passed + context, moved * transform.count)
    return Coupling(sizes, conditioner, transform, flip=flip, context=context)


def flattened(shape: Sequence[int]) -> list[Bijection]:
    """Returns the layer that flattens events to rows; none if they are rows."""
    return [Reshape(tuple(shape), (math.prod(shape),))] if len(shape) > 1 else []


def mixing(size: int, start: str, generator: torch.Generator) -> Dense:
    """Returns a dense layer that starts as a random ``rotation``, or as the ``reversal``."""
    if start not in ("rotation", "reversal"):
        raise ValueError(f"mixing: found {start!r}, expected one of rotation, reversal")
    weight = torch.eye(size).flip(0)
    if start == "rotation":
        nn.init.orthogonal_(weight, generator=generator)
    return Dense(weight, torch.zeros(size))


def conditioned(
    shape: tuple[int, ...], context: int, generator: torch.Generator | None
) -> list[Bijection]:
    """Returns the layer that adds a context after a linear layer; none without a context."""
    return [ConditionalAffine(shape, context, generator=generator)] if context else []


def spectral(layer: nn.Module, generator: torch.Generator | None) -> nn.Module:
    """Divides the weight by its largest singular value from now on, and returns the layer.

    Source: Spectral Normalization for Generative Adversarial Networks (Miyato, Kataoka, Koyama,
    Yoshida, 2018), arXiv:1802.05957.
    """
    generator = generator or torch.Generator().manual_seed(0)
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=()):  # the power iteration starts from the global state
        torch.manual_seed(seed)
        return spectral_norm(layer)


def finished(
    architecture: Callable[..., Flow], layers: Sequence[Bijection], arguments: dict[str, Any]
) -> Flow:
    """Returns the flow of these layers, with the spec that rebuilds it.

    The spec has the arguments of the ``architecture``, the function that created the layers,
    except those in ``START``.
    """
    names = [name for name in signature(architecture).parameters if name not in START]
    options = {name: arguments[name] for name in names}
    shape, context, dtype = arguments["shape"], arguments["context"], arguments["dtype"]
    spec = {"architecture": architecture.__name__, "shape": list(shape), "options": options}
    base = copy.deepcopy(arguments["base"])  # training must not change the caller's base
    flow = Flow(shape, layers, base=base, context=context, spec=spec)
    return flow.to(dtype or torch.get_default_dtype())
