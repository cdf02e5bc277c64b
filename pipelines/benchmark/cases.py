"""What a benchmark times: objectives on dense flows and on the paper's CNN, of any size."""

__all__ = ["Case", "convolutional_cases", "dense_cases", "image_cases"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from ebflow.architectures import convolutional, dense
from ebflow.flow import Flow
from ebflow.objectives import OBJECTIVES
from ebflow.randomness import generator as derive
from pipelines.benchmark.costs import convolutional_flops, flops, gemms

ANCHORED = ("dsm", "ssm")
ZERO_PADDED = ("ml", "lazy_ml", "sml", "dsm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm")
"""Not ``relative_ml``, which for a convolution is ``ml``, nor ``exact_sm``, of D tangents."""

RIVALS = {"zero": ZERO_PADDED, "circular": ("ml", "dsm"), "masked": ("ml", "dsm")}
"""Objectives by the padding of the convolutions: those of zero padding, and its cheap rivals."""


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        label: Its name.
        flow: Makes the flow from a generator.
        objective: The objective's name.
        anchored: Whether an anchor of weight 1 stands beside it.
        gemms: GEMMs of 2 B D² FLOP a step; None where that is not the measure.
        flops: FLOP of a step; None where they are not counted.
    """

    label: str
    flow: Callable[[torch.Generator], Flow]
    objective: str
    anchored: bool = False
    gemms: int | None = None
    flops: float | None = None

    @property
    def refreshed(self) -> bool:
        """Whether an anchor is refreshed from time to time."""
        return self.anchored or self.objective == "lazy_ml"


def dense_cases(
    size: int,
    *,
    depth: int = 2,
    batch: int = 100,
    objectives: Sequence[str] = tuple(OBJECTIVES),
    activations: Sequence[str] = ("smooth_leaky_relu",),
) -> list[Case]:
    """Returns objectives on dense flows, alone and, of ``ANCHORED``, beside the anchor.

    Where there are several activations, labels end with them.

    ``exact_sm`` is left out beyond two layers, where its trace has no closed form.
    """
    flows = {name: partial(_dense, size, depth, name) for name in activations}
    found = []
    for name, kind in product(objectives, activations):
        if name == "exact_sm" and depth > 2:
            continue
        counts = {"gemms": gemms(name, depth), "flops": flops(name, size, batch, depth)}
        behind = f", {kind}" if len(flows) > 1 else ""
        found.append(Case(f"{name}{behind}", flows[kind], name, **counts))
        if name in ANCHORED:
            label = f"{name} + anchor{behind}"
            found.append(Case(label, flows[kind], name, anchored=True, **counts))
    return found


def convolutional_cases(
    shape: Sequence[int],
    kernel_size: int,
    *,
    batch: int = 100,
    objectives: Mapping[str, Sequence[str]] = RIVALS,
) -> list[Case]:
    """Returns objectives on the paper's CNN, by the padding of its convolutions."""
    found = []
    for padding, names in objectives.items():
        flow = partial(_cnn, tuple(shape), kernel_size, padding)
        net = flow(derive(0, "benchmark"))
        for name in names:
            count = convolutional_flops(name, net, batch)
            found.append(Case(f"{name}, {padding}", flow, name, flops=count))
    return found


def image_cases(
    channels: int,
    sides: Iterable[int],
    kernel_size: int,
    *,
    batch: int = 100,
    objectives: Sequence[str] = ZERO_PADDED,
) -> list[list[Case]]:
    """Returns for every side n the cases of images (channels, n, n), padded with zeros.

    Raises:
        ValueError: if a side is no multiple of 4; the CNN halves it twice.
    """
    sides = list(sides)
    if bad := [side for side in sides if side < 4 or side % 4]:
        raise ValueError(f"sides: found {bad[0]}, expected multiples of 4")
    make = partial(
        convolutional_cases, kernel_size=kernel_size, batch=batch, objectives={"zero": objectives}
    )
    return [make((channels, side, side)) for side in sides]


def _dense(size: int, depth: int, activation: str, generator: torch.Generator) -> Flow:
    return dense((size,), depth=depth, activation=activation, noise=0.1, generator=generator)


def _cnn(shape: tuple[int, ...], side: int, padding: str, generator: torch.Generator) -> Flow:
    options = {"kernel_size": side, "padding": padding, "noise": 0.1, "generator": generator}
    return convolutional(shape, **options)
