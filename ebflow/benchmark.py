"""Step times of every objective on this machine, beside its matrix-product peak.

A step is loss, backward and fused Adam on a batch that is already preprocessed. Objectives are
timed in turn, round after round, so that a slow spell of the machine meets them alike; the least
time of a row is reported, with the median beside it.
"""

__all__ = ["Timing", "benchmark", "growth", "steppers"]

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .anchor import Anchor
from .architectures import dense
from .costs import flops, gemms
from .loss import Loss
from .objectives import OBJECTIVES, lazy_ml
from .randomness import generator as derive

INTERVAL = 100
"""Steps between refreshes of an anchor; no refresh is timed with a step."""


@dataclass(frozen=True)
class Timing:
    """One row of the benchmark.

    Attributes:
        size: D.
        objective: Its name; ``+ anchor`` if one is added.
        ms: The least step time in milliseconds, with 1/100 of a refresh of the anchor.
        median_ms: The median.
        gemms: GEMMs of 2 B D² FLOP a step.
        peak_fraction: FLOP of the step / (least time · measured peak).
        ml_ratio: Least time of slogdet ML / least time.
    """

    size: int
    objective: str
    ms: float
    median_ms: float
    gemms: int
    peak_fraction: float
    ml_ratio: float


def benchmark(
    size: int,
    *,
    peak: float,
    depth: int = 2,
    batch: int = 100,
    seconds: float = 2.0,
    objectives: Sequence[str] = tuple(OBJECTIVES),
) -> list[Timing]:
    """Returns the timings of all objectives at one size.

    ``exact_sm`` is timed for one or two layers, where its trace has a closed form.

    Arguments:
        size: The dimension D.
        peak: This machine's matrix-product peak in FLOP/s (``costs.measured_peak``).
        depth: The number of dense layers L.
        batch: The batch size B.
        seconds: Least time given to every row; slow rows get at least 5 steps.
        objectives: Which to time; ``ml`` is always timed, as the reference.
    """
    if depth > 2:
        objectives = [name for name in objectives if name != "exact_sm"]
    times = _interleaved(steppers(size, depth, batch, objectives), seconds)
    share = _refresh_seconds(size, depth) / INTERVAL
    times = {n: [t + share * _refreshes(n) for t in row] for n, row in times.items()}
    reference = min(times["ml"])
    return [_timing(name, row, size, depth, batch, peak, reference) for name, row in times.items()]


def growth(timings: Sequence[Timing], least: int = 784) -> dict[str, float]:
    """Returns, for every objective, the exponent of D in step times from ``least`` on."""
    rows: dict[str, list[Timing]] = {}
    for timing in timings:
        if timing.size >= least:
            rows.setdefault(timing.objective, []).append(timing)
    return {
        name: math.log(found[-1].ms / found[0].ms) / math.log(found[-1].size / found[0].size)
        for name, found in rows.items()
        if len(found) > 1
    }


def _timing(
    name: str, row: list[float], size: int, depth: int, batch: int, peak: float, reference: float
) -> Timing:
    base, least = name.split(" ")[0], min(row)
    return Timing(
        size=size,
        objective=name,
        ms=1e3 * least,
        median_ms=1e3 * statistics.median(row),
        gemms=gemms(base, depth),
        peak_fraction=flops(base, size, batch, depth) / (least * peak),
        ml_ratio=reference / least,
    )


def _refreshes(name: str) -> bool:
    return name == "lazy_ml" or name.endswith("+ anchor")


def _refresh_seconds(size: int, depth: int) -> float:
    """Returns the least time of three refreshes of an anchor."""
    anchor, times = Anchor(dense((size,), depth=depth)), []
    for _ in range(3):
        begin = time.perf_counter()
        anchor.refresh()
        times.append(time.perf_counter() - begin)
    return min(times)


def steppers(
    size: int, depth: int, batch: int, objectives: Sequence[str]
) -> dict[str, Callable[[], None]]:
    """Returns a function that does one training step, for every objective."""
    anchored = {"dsm", "ssm"} & set(objectives)
    names = [*dict.fromkeys(("ml", *objectives)), *(f"{name} + anchor" for name in anchored)]
    return {name: _stepper(name, size, depth, batch) for name in sorted(names, key=_order)}


def _order(name: str) -> tuple[int, str]:
    return list(OBJECTIVES).index(name.split(" ")[0]), name


def _stepper(name: str, size: int, depth: int, batch: int) -> Callable[[], None]:
    noise = derive(0, "benchmark", name)
    flow = dense((size,), depth=depth, noise=0.1, generator=noise)
    loss = _loss(name, flow)
    parameters = list(flow.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-5, fused=True)
    x = torch.randn(batch, size, generator=noise)

    def step() -> None:
        if loss.anchor is not None:
            loss.anchor.step()
        optimizer.zero_grad(set_to_none=True)
        value: Tensor = loss(x, noise).mean()
        value.backward(inputs=parameters)
        optimizer.step()

    return step


def _loss(name: str, flow: torch.nn.Module) -> Loss:
    base, _, anchored = name.partition(" ")
    if base == "lazy_ml":
        anchor = Anchor(flow, interval=10**9)
        return Loss(flow, partial(lazy_ml, anchor=anchor), anchor=anchor)
    anchor = Anchor(flow, interval=10**9) if anchored else None
    return Loss(flow, OBJECTIVES[base], anchor=anchor, anchor_weight=float(bool(anchored)))


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
