"""Step times of every objective on this machine, beside its matrix-product peak.

A step is loss, backward and fused Adam on a batch that is already preprocessed. Cases are timed
in turn, round after round, so that a slow spell of the machine meets them alike; the least time
of a case is reported, with the median beside it.
"""

__all__ = [
    "Case",
    "Timing",
    "benchmark",
    "convolutional_cases",
    "dense_cases",
    "growth",
    "stepper",
]

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from .anchor import Anchor
from .architectures import convolutional, dense
from .costs import flops, gemms
from .flow import Flow
from .loss import Loss
from .objectives import OBJECTIVES, lazy_ml
from .randomness import generator as derive

INTERVAL = 100
"""Steps between refreshes of an anchor; no refresh is timed with a step."""

ANCHORED = ("dsm", "ssm")
RIVALS = {
    "zero": ("ml", "lazy_ml", "dsm", "ssm", "ssm_vr", "fd_ssm"),
    "circular": ("ml", "dsm"),
    "masked": ("ml", "dsm"),
}
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


@dataclass(frozen=True)
class Timing:
    """One row of the benchmark.

    Attributes:
        size: D.
        label: The case's.
        ms: The least step time in milliseconds, with 1/100 of a refresh of the anchor.
        median_ms: The median.
        gemms: GEMMs of 2 B D² FLOP a step, where they are the measure.
        peak_fraction: FLOP of the step / (least time · measured peak), where they are counted.
        ml_ratio: Least time of exact ML / least time.
    """

    size: int
    label: str
    ms: float
    median_ms: float
    gemms: int | None
    peak_fraction: float | None
    ml_ratio: float


def dense_cases(
    size: int, *, depth: int = 2, batch: int = 100, objectives: Sequence[str] = tuple(OBJECTIVES)
) -> list[Case]:
    """Returns every objective on a dense flow, exact ML first.

    ``exact_sm`` is left out beyond two layers, where its trace has no closed form.
    """
    flow = partial(_dense, size, depth)
    names = dict.fromkeys(("ml", *objectives))
    if depth > 2:
        names.pop("exact_sm", None)
    found = []
    for name in names:
        counts = {"gemms": gemms(name, depth), "flops": flops(name, size, batch, depth)}
        found.append(Case(name, flow, name, **counts))
        if name in ANCHORED:
            found.append(Case(f"{name} + anchor", flow, name, anchored=True, **counts))
    return found


def convolutional_cases(shape: Sequence[int], kernel_size: int) -> list[Case]:
    """Returns objectives on the paper's CNN, exact ML with zero padding first."""
    return [
        Case(f"{name}, {padding}", partial(_cnn, tuple(shape), kernel_size, padding), name)
        for padding, names in RIVALS.items()
        for name in names
    ]


def _dense(size: int, depth: int, generator: torch.Generator) -> Flow:
    return dense((size,), depth=depth, noise=0.1, generator=generator)


def _cnn(shape: tuple[int, ...], side: int, padding: str, generator: torch.Generator) -> Flow:
    options = {"kernel_size": side, "padding": padding, "noise": 0.1, "generator": generator}
    return convolutional(shape, **options)


def benchmark(
    cases: Sequence[Case], *, peak: float, batch: int = 100, seconds: float = 2.0
) -> list[Timing]:
    """Returns the timings of cases of one size.

    Arguments:
        cases: What to time; the first is the reference of ``ml_ratio``.
        peak: This machine's matrix-product peak in FLOP/s (``costs.measured_peak``).
        batch: The batch size B.
        seconds: Least time given to every row; slow rows get at least 5 steps.
    """
    refresh = cache(_refresh_seconds)
    times = _interleaved({case.label: stepper(case, batch) for case in cases}, seconds)
    for case in cases:
        share = refresh(case.flow) / INTERVAL if case.refreshed else 0.0
        times[case.label] = [spent + share for spent in times[case.label]]
    size = math.prod(cases[0].flow(derive(0, "benchmark")).event_shape)
    reference = min(times[cases[0].label])
    return [_timing(case, times[case.label], size, peak, reference) for case in cases]


def growth(timings: Sequence[Timing], least: int = 784) -> dict[str, float]:
    """Returns, for every objective, the exponent of D in step times from ``least`` on."""
    rows: dict[str, list[Timing]] = {}
    for timing in timings:
        if timing.size >= least:
            rows.setdefault(timing.label, []).append(timing)
    return {
        name: math.log(found[-1].ms / found[0].ms) / math.log(found[-1].size / found[0].size)
        for name, found in rows.items()
        if len(found) > 1
    }


def _timing(case: Case, row: list[float], size: int, peak: float, reference: float) -> Timing:
    least = min(row)
    return Timing(
        size=size,
        label=case.label,
        ms=1e3 * least,
        median_ms=1e3 * statistics.median(row),
        gemms=case.gemms,
        peak_fraction=None if case.flops is None else case.flops / (least * peak),
        ml_ratio=reference / least,
    )


def _refresh_seconds(flow: Callable[[torch.Generator], Flow]) -> float:
    """Returns the least time of three refreshes of an anchor."""
    anchor, times = Anchor(flow(derive(0, "benchmark"))), []
    for _ in range(3):
        begin = time.perf_counter()
        anchor.refresh()
        times.append(time.perf_counter() - begin)
    return min(times)


def stepper(case: Case, batch: int) -> Callable[[], None]:
    """Returns a function that does one training step of a case."""
    noise = derive(0, "benchmark", case.label)
    flow = case.flow(noise)
    loss = _loss(case, flow)
    parameters = list(flow.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-5, fused=True)
    x = torch.randn(batch, *flow.event_shape, generator=noise)

    def step() -> None:
        if loss.anchor is not None:
            loss.anchor.step()
        optimizer.zero_grad(set_to_none=True)
        value: Tensor = loss(x, noise).mean()
        value.backward(inputs=parameters)
        optimizer.step()

    return step


def _loss(case: Case, flow: Flow) -> Loss:
    anchor = Anchor(flow, interval=10**9) if case.refreshed else None
    if case.objective == "lazy_ml":
        return Loss(flow, partial(lazy_ml, anchor=anchor), anchor=anchor)
    weight = float(case.anchored)
    return Loss(flow, OBJECTIVES[case.objective], anchor=anchor, anchor_weight=weight)


def _interleaved(
    steps: dict[str, Callable[[], None]], seconds: float, least: int = 5, burst: int = 4
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    while any(len(row) < least or sum(row) < seconds for row in times.values()):
        for name, step in steps.items():
            row = times[name]
            if len(row) >= least and sum(row) >= seconds:
                continue
            for _ in range(burst):
                begin = time.perf_counter()
                step()
                row.append(time.perf_counter() - begin)
    return times
