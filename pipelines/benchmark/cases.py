"""What a benchmark times: objectives on dense flows and on the paper's CNN, of any size."""

__all__ = ["Case", "convolutional_cases", "dense_cases", "image_cases"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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
    size: int, *, depth: int = 2, batch: int = 100, objectives: Sequence[str] = tuple(OBJECTIVES)
) -> list[Case]:
    """Returns objectives on a dense flow, alone and, of ``ANCHORED``, beside the anchor.

    ``exact_sm`` is left out beyond two layers, where its trace has no closed form.
    """
    flow = partial(_dense, size, depth)
    found = []
    for name in objectives:
        if name == "exact_sm" and depth > 2:
            continue
        counts = {"gemms": gemms(name, depth), "flops": flops(name, size, batch, depth)}
        found.append(Case(name, flow, name, **counts))
        if name in ANCHORED:
            found.append(Case(f"{name} + anchor", flow, name, anchored=True, **counts))
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


def _dense(size: int, depth: int, generator: torch.Generator) -> Flow:
    return dense((size,), depth=depth, noise=0.1, generator=generator)


def _cnn(shape: tuple[int, ...], side: int, padding: str, generator: torch.Generator) -> Flow:
    options = {"kernel_size": side, "padding": padding, "noise": 0.1, "generator": generator}
    return convolutional(shape, **options)
