"""What a benchmark times: objectives on dense flows of two layers and on the paper's CNN."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ebflow.architectures import convolutional, dense
from ebflow.flow import Flow
from ebflow.objectives import OBJECTIVES
from ebflow.randomness import generator as derive
from pipelines.paper.benchmark.costs import convolutional_flops, flops

ANCHORED = ("dsm", "ssm")
DEPTH = 2


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        label: Its name.
        flow: Makes the flow from a generator.
        objective: The objective's name.
        anchored: Whether an anchor of weight 1 stands beside it.
        flops: FLOP of a step; None where they are not counted.
    """

    label: str
    flow: Callable[[torch.Generator], Flow]
    objective: str
    anchored: bool = False
    flops: float | None = None

    @property
    def refreshed(self) -> bool:
        """Whether an anchor is refreshed from time to time."""
        return self.anchored or self.objective == "lazy_ml"


def dense_cases(
    size: int,
    *,
    batch: int = 100,
    objectives: Sequence[str] = tuple(OBJECTIVES),
    activation: str = "smooth_leaky_relu",
) -> list[Case]:
    """Returns objectives on dense flows, alone and, of ``ANCHORED``, beside the anchor."""
    flow = partial(_dense, size, activation)
    found = []
    for name in objectives:
        count = flops(name, size, batch, DEPTH)
        found.append(Case(name, flow, name, flops=count))
        if name in ANCHORED:
            found.append(Case(f"{name} + anchor", flow, name, anchored=True, flops=count))
    return found


def convolutional_cases(
    shape: Sequence[int],
    kernel_size: int,
    *,
    batch: int = 100,
    objectives: Sequence[str],
    padding: str = "zero",
) -> list[Case]:
    """Returns objectives on the paper's CNN, by the padding of its convolutions."""
    flow = partial(_cnn, tuple(shape), kernel_size, padding)
    net = flow(derive(0, "benchmark"))
    return [
        Case(name, flow, name, flops=convolutional_flops(name, net, batch)) for name in objectives
    ]


def _dense(size: int, activation: str, generator: torch.Generator) -> Flow:
    return dense((size,), depth=DEPTH, activation=activation, noise=0.1, generator=generator)


def _cnn(shape: tuple[int, ...], side: int, padding: str, generator: torch.Generator) -> Flow:
    options = {"kernel_size": side, "padding": padding, "noise": 0.1, "generator": generator}
    return convolutional(shape, **options)
