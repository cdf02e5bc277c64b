"""Step times of every objective on this machine, beside its matrix-product peak.

A step is loss, backward and fused Adam on a batch that is already preprocessed. Cases are timed
in turn, round after round, so that a slow spell of the machine meets them alike; the least time
of a case is reported. Cases of one flow share its weights, optimiser and anchor, whose values do
not change what a step costs: memory is that of one training.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from ebflow.anchor import Anchor
from ebflow.flow import Flow
from ebflow.loss import Loss, LossModule, Progress
from ebflow.objectives import OBJECTIVES, lazy_ml
from ebflow.randomness import RowGenerator
from ebflow.randomness import generator as derive
from pipelines.paper.benchmark.cases import Case

INTERVAL = 100
"""Steps between refreshes of an anchor; no refresh is timed with a step."""


@dataclass(frozen=True)
class Timing:
    """One row of the benchmark.

    Attributes:
        size: D.
        label: The case's.
        ms: The least step time in milliseconds, with 1/100 of a refresh of the anchor.
        peak_fraction: FLOP of the step / (least time · measured peak), where they are counted.
    """

    size: int
    label: str
    ms: float
    peak_fraction: float | None


def benchmark(
    cases: Sequence[Case], *, peak: float, batch: int = 100, seconds: float = 2.0
) -> list[Timing]:
    """Returns the timings of cases of one size.

    Arguments:
        cases: What to time.
        peak: This machine's matrix-product peak in FLOP/s (``costs.measured_peak``).
        batch: The batch size B.
        seconds: Least time given to every row; slow rows get at least 5 steps.
    """
    subject = cache(Subject)
    refresh = cache(partial(_refresh_seconds, seconds=seconds))
    steps = {case.label: stepper(case, batch, subject(case.flow)) for case in cases}
    share = {
        case.label: refresh(subject(case.flow).anchor) / INTERVAL if case.refreshed else 0.0
        for case in cases
    }
    times = _interleaved(steps, seconds)
    least = {label: min(row) + share[label] for label, row in times.items()}
    size = math.prod(subject(cases[0].flow).flow.event_shape)
    return [_timing(case, size, least[case.label], peak) for case in cases]


def _timing(case: Case, size: int, least: float, peak: float) -> Timing:
    fraction = None if case.flops is None else case.flops / (least * peak)
    return Timing(size, case.label, 1e3 * least, fraction)


def _refresh_seconds(anchor: Anchor, seconds: float) -> float:
    """Returns the least time of three refreshes, or of one that takes longer than ``seconds``."""
    times: list[float] = []
    while not times or (len(times) < 3 and sum(times) < seconds):
        begin = time.perf_counter()
        anchor.refresh()
        times.append(time.perf_counter() - begin)
    return min(times)


class Subject:
    """Creates a flow, and the optimiser and the anchor that the steps of all its cases share."""

    def __init__(self, flow: Callable[[torch.Generator], Flow]) -> None:
        self.flow = flow(derive(0, "benchmark"))
        self.parameters = list(self.flow.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-6, fused=True)
        self.anchor = Anchor(self.flow, interval=10**9)


def stepper(case: Case, batch: int, subject: Subject | None = None) -> Callable[[], Tensor]:
    """Returns a function that does one training step of a case and returns the loss.

    Arguments:
        case: What to train.
        batch: The batch size B.
        subject: What is trained, if it is shared with other cases.
    """
    subject = subject or Subject(case.flow)
    module, count = LossModule(subject.flow, _loss(case, subject)), itertools.count()
    noise = RowGenerator(0, "benchmark", case.label)
    drawn = derive(0, "benchmark", case.label)
    x = torch.randn(batch, *subject.flow.event_shape, generator=drawn)

    def step() -> Tensor:
        subject.optimizer.zero_grad(set_to_none=True)
        value: Tensor = module(x, None, noise, Progress(next(count)))[0].mean()
        value.backward(inputs=subject.parameters)
        subject.optimizer.step()
        return value.detach()

    return step


def _loss(case: Case, subject: Subject) -> Loss:
    anchor = subject.anchor if case.refreshed else None
    if case.objective == "lazy_ml":
        return Loss(partial(lazy_ml, anchor=anchor), anchor=anchor)
    objective, weight = OBJECTIVES[case.objective], float(case.anchored)
    return Loss(objective, anchor=anchor, anchor_weight=weight)


def _interleaved(
    steps: dict[str, Callable[[], Tensor]], seconds: float, least: int = 5, burst: int = 4
) -> dict[str, list[float]]:
    def wanted(row: list[float]) -> bool:
        return len(row) < least or sum(row) < seconds

    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    while any(map(wanted, times.values())):
        for name, step in steps.items():
            for _ in range(burst):
                if wanted(times[name]):
                    begin = time.perf_counter()
                    step()
                    times[name].append(time.perf_counter() - begin)
    return times
