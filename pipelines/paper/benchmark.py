"""Step times of objectives on one flow, beside this machine's matrix-product peak.

A step is loss, backward and fused Adam on a batch that is already preprocessed. Objectives are
timed in turn, round after round, so that a slow spell of the machine meets them alike; the least
time of each is reported. They share the flow's weights, optimiser and anchor, whose values do not
change what a step costs: memory is that of one training.
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ebflow.anchor import Anchor
from ebflow.bijections import Convolution, Dense
from ebflow.flow import Flow
from ebflow.loss import Loss, LossModule, Progress
from ebflow.objectives import OBJECTIVES, lazy_ml
from ebflow.randomness import RowGenerator
from ebflow.randomness import generator as derive

ANCHORED = " + anchor"
"""What follows the name of an objective beside an anchor of weight 1."""

INTERVAL = 100
"""Steps between refreshes of an anchor; no refresh is timed with a step."""

LEAST, BURST = 5, 4
"""Steps of every objective at least, and at a time."""

Step = Callable[[], Tensor]
"""Does one training step, and returns the loss."""


@dataclass(frozen=True)
class Timing:
    """One row of the benchmark.

    Attributes:
        size: D.
        label: The objective, with ``ANCHORED`` if it is.
        ms: The least step time in milliseconds, with 1/100 of a refresh of the anchor.
        peak_fraction: FLOP of the step / (least time · measured peak), where they are counted.
    """

    size: int
    label: str
    ms: float
    peak_fraction: float | None


def benchmark(
    flow: Flow, labels: Sequence[str], *, peak: float, batch: int = 100, seconds: float = 2.0
) -> list[Timing]:
    """Returns the timings of objectives.

    Arguments:
        flow: What is trained.
        labels: The objectives, with ``ANCHORED`` behind some.
        peak: This machine's matrix-product peak in FLOP/s (``measured_peak``).
        batch: The batch size B.
        seconds: Least time given to every objective; slow ones get at least 5 steps.
    """
    subject = Subject(flow)
    refreshed = [label for label in labels if subject.anchor_of(label)]
    refresh = _refresh_seconds(subject.anchor, seconds) if refreshed else 0.0
    steps = {label: subject.stepper(label, batch) for label in labels}
    flops = {label: step_flops(flow, label, batch, step) for label, step in steps.items()}
    found = []
    for label, times in _interleaved(steps, seconds).items():
        least = min(times) + (refresh / INTERVAL if label in refreshed else 0.0)
        fraction = None if flops[label] is None else flops[label] / (least * peak)
        found.append(Timing(math.prod(flow.event_shape), label, 1e3 * least, fraction))
    return found


class Subject:
    """Creates the optimiser and the anchor that the steps of all objectives share."""

    def __init__(self, flow: Flow) -> None:
        self.flow, self.parameters = flow, list(flow.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-6, fused=True)
        self.anchor = Anchor(flow, interval=10**9)

    def anchor_of(self, label: str) -> Anchor | None:
        """Returns the anchor, if the steps of an objective refresh it from time to time."""
        return self.anchor if label == "lazy_ml" or label.endswith(ANCHORED) else None

    def stepper(self, label: str, batch: int) -> Step:
        """Returns a training step of an objective, by batches of a size."""
        module, count = LossModule(self.flow, self._loss(label)), itertools.count()
        noise, drawn = RowGenerator(0, "benchmark", label), derive(0, "benchmark", label)
        x = torch.randn(batch, *self.flow.event_shape, generator=drawn)

        def step() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            value: Tensor = module(x, None, noise, Progress(next(count)))[0].mean()
            value.backward(inputs=self.parameters)
            self.optimizer.step()
            return value.detach()

        return step

    def _loss(self, label: str) -> Loss:
        anchor, name = self.anchor_of(label), label.removesuffix(ANCHORED)
        if name == "lazy_ml":
            return Loss(partial(lazy_ml, anchor=anchor), anchor=anchor)
        return Loss(OBJECTIVES[name], anchor=anchor, anchor_weight=float(anchor is not None))


def _refresh_seconds(anchor: Anchor, seconds: float) -> float:
    """Returns the least time of three refreshes, or of one that takes longer than ``seconds``."""
    times: list[float] = []
    while not times or (len(times) < 3 and sum(times) < seconds):
        begin = time.perf_counter()
        anchor.refresh()
        times.append(time.perf_counter() - begin)
    return min(times)


def _interleaved(steps: Mapping[str, Step], seconds: float) -> dict[str, list[float]]:
    def wanted(row: list[float]) -> bool:
        return len(row) < LEAST or sum(row) < seconds

    times: dict[str, list[float]] = {name: [] for name in steps}
    while any(map(wanted, times.values())):
        for name, step in steps.items():
            for _ in range(BURST):
                if wanted(times[name]):
                    begin = time.perf_counter()
                    step()
                    times[name].append(time.perf_counter() - begin)
    return times


def step_flops(flow: Flow, label: str, batch: int, step: Step) -> float | None:
    """Does a step; returns its FLOP, element-wise work left out.

    PyTorch counts matrix products and convolutions. Added are, for every layer of n coordinates,
    LU (2/3 n³) of ``ml`` and ``sml``, the inverse for the gradient of ``ml`` (2 n³), and the
    triangular solutions of ``sml`` (2 B n²). For zero padding ``ml`` eliminates a convolution by
    strips of rows (``bijections.convolution``), each with one inverse more; for masked kernels it
    needs nothing.

    None of convolutions by ``exact_sm`` and ``relative_ml``, which are no use to them, ``sml``,
    which solves in float64, and ``ml`` of circular ones, by Fourier transforms and small complex
    blocks.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    count, name = counter.get_total_flops(), label.removesuffix(ANCHORED)
    convolutions = [layer for layer in flow.layers if isinstance(layer, Convolution)]
    if not convolutions:
        sizes = [len(layer.weight) for layer in flow.layers if isinstance(layer, Dense)]
        cubic = {"ml": 8 / 3, "sml": 2 / 3}.get(name, 0.0)
        solved = 2 * batch if name == "sml" else 0
        return count + sum(cubic * n**3 + solved * n**2 for n in sizes)
    circular = any(layer.padding == "circular" for layer in convolutions)
    if name in ("exact_sm", "relative_ml", "sml") or (name == "ml" and circular):
        return None
    strips = [n for layer in convolutions if layer.lazy for n in _strips(layer)]
    return count + (sum(14 / 3 * n**3 for n in strips) if name == "ml" else 0)


def _strips(layer: Convolution) -> list[int]:
    """Returns the coordinates of the strips of rows by which a layer is eliminated."""
    (channels, height, width), side = layer.event_shape, layer.weight.shape[-1]
    rows = max(1, side // 2)
    return [min(rows, height - row) * width * channels for row in range(0, height, rows)]


def measured_peak(sizes: Sequence[int] = (512, 1024, 2048), seconds: float = 0.3) -> float:
    """Returns the best float32 matrix product of this machine in FLOP/s, over square sizes."""
    return max(_rate(size, seconds) for size in sizes)


def _rate(size: int, seconds: float) -> float:
    a, b = torch.randn(size, size), torch.randn(size, size)
    out, best, begin = torch.empty(size, size), 0.0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
