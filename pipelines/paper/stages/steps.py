"""The time of a training step of every objective on one net, beside this machine's peak.

A step is loss, backward and fused Adam on a batch that is already preprocessed. Objectives are
timed in turn, round after round, so that a slow spell of the machine meets them alike; the least
time of each is reported. They share the flow's weights, optimizer and anchor, whose values do not
change what a step costs: memory is that of one training.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ebflow.anchor import Anchor
from ebflow.architectures import convolutional, dense
from ebflow.bijections import Convolution, Dense
from ebflow.flow import Flow
from ebflow.loss import Loss, LossModule, Progress
from ebflow.objectives import OBJECTIVES, lazy_ml
from ebflow.randomness import RowGenerator, generator
from pipelines.paper.config import StepsConfig
from pipelines.tracking.run import StageRun

ANCHORED = " + anchor"
"""What follows the name of an objective beside an anchor of weight 1."""

INTERVAL = 100
"""Steps between refreshes of an anchor; no refresh is timed with a step."""

BURST = 5
"""Steps of an objective at a time."""

Step = Callable[[], Tensor]
"""Does one training step, and returns the loss."""

BESIDE = ("dsm", "ssm")
"""Objectives that are timed beside an anchor too, of dense layers."""

USELESS = ("relative_ml", "exact_sm")
"""What is of no use to a convolution: the one is ml there, the other has D tangents."""

VARIED = {"FC": ("ml", "lazy_ml", "dsm"), "CNN": ("ml", "dsm")}
"""The objectives of variants of a net."""


def steps(config: StepsConfig, *, run: StageRun) -> None:
    """Writes ``timings.json``, objective by objective.

    It is to be the only stage that runs.
    """
    run.log_params(config.model_dump())
    torch.set_num_threads(config.threads)
    peak = measured_peak()
    rows = benchmark(net(config), labels(config), peak=peak, seconds=config.seconds)
    (run.output / "timings.json").write_text(json.dumps(rows, indent=1) + "\n")
    run.log_metrics(
        {f"time/step_ms/{row['label'].replace(' + ', '_')}": row["ms"] for row in rows}
    )


def net(config: StepsConfig) -> Flow:
    """Returns two dense layers, or the paper's CNN; a plain convolution pads with zeros."""
    plain, options = config.variant == "plain", {"noise": 0.1}
    options["generator"] = generator(0, "benchmark")
    if config.net == "FC":
        activation = "smooth_leaky_relu" if plain else config.variant
        return dense((config.channels * config.side**2,), activation=activation, **options)
    padding = "zero" if plain else config.variant
    shape = (config.channels, config.side, config.side)
    return convolutional(shape, kernel_size=7, padding=padding, **options)


def labels(config: StepsConfig) -> list[str]:
    """Returns the objectives that are timed."""
    names = tuple(OBJECTIVES) if config.variant == "plain" else VARIED[config.net]
    if config.net == "CNN":
        return [name for name in names if name not in USELESS]
    anchored = {name: [name, f"{name}{ANCHORED}"] for name in BESIDE}
    return [label for name in names for label in anchored.get(name, [name])]


def benchmark(
    flow: Flow, labels: Sequence[str], *, peak: float, batch: int = 100, seconds: float = 2.0
) -> list[dict[str, Any]]:
    """Returns the timings of objectives.

    Each has ``size`` (D), ``label`` (the objective, with ``ANCHORED`` if it is), ``ms`` (the least
    step time, with 1/100 of a refresh of the anchor) and ``peak_fraction`` (FLOP of the step over
    the least time times the peak; None where they are not counted).

    Arguments:
        flow: What is trained.
        labels: The objectives, with ``ANCHORED`` behind some.
        peak: This machine's matrix-product peak in FLOP/s (``measured_peak``).
        batch: The batch size B.
        seconds: Least time given to every objective; slow ones get at least 5 steps.
    """
    subject = Subject(flow)
    refreshed = [label for label in labels if subject.anchor_of(label)]
    refresh = _least({"": subject.anchor.refresh}, seconds)[""] if refreshed else 0.0
    steps = {label: subject.stepper(label, batch) for label in labels}
    flops = {label: step_flops(flow, label, batch, step) for label, step in steps.items()}
    found = []
    for label, least in _least(steps, seconds, BURST).items():
        spent = least + (refresh / INTERVAL if label in refreshed else 0.0)
        fraction = None if flops[label] is None else flops[label] / (spent * peak)
        size = math.prod(flow.event_shape)
        found.append({"size": size, "label": label, "ms": 1e3 * spent, "peak_fraction": fraction})
    return found


def _least(
    actions: Mapping[str, Callable[[], object]], seconds: float, burst: int = 1
) -> dict[str, float]:
    """Returns the least time of each, which are done in turn until each has had its seconds."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    while due := [name for name, found in times.items() if not found or sum(found) < seconds]:
        for name in due:
            for _ in range(burst):
                began = time.perf_counter()
                actions[name]()
                times[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in times.items()}


class Subject:
    """Creates the optimizer and the anchor that the steps of all objectives share."""

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
        noise, drawn = RowGenerator(0, "benchmark", label), generator(0, "benchmark", label)
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


def step_flops(flow: Flow, label: str, batch: int, step: Step) -> float | None:
    """Does a step; returns its FLOP, element-wise work left out.

    PyTorch counts matrix products and convolutions. Added are, for every layer of n coordinates,
    LU (2/3 n³) of ``ml`` and ``sml``, the inverse for the gradient of ``ml`` (2 n³), and the
    triangular solutions of ``sml`` (2 B n²). For zero padding ``ml`` eliminates a convolution by
    strips of rows (``bijections.convolution``), each with one inverse more.

    None of convolutions by ``sml``, which solves in float64, and by ``ml`` of circular ones, by
    Fourier transforms and small complex blocks.
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
    if name == "sml" or (name == "ml" and circular):
        return None
    strips = [n for layer in convolutions for n in _strips(layer)]
    return count + (sum(14 / 3 * n**3 for n in strips) if name == "ml" else 0)


def _strips(layer: Convolution) -> list[int]:
    """Returns the coordinates of the strips of rows by which a layer is eliminated."""
    (channels, height, width), side = layer.event_shape, layer.weight.shape[-1]
    rows = max(1, side // 2)
    return [min(rows, height - row) * width * channels for row in range(0, height, rows)]


def measured_peak(sizes: Sequence[int] = (512, 1024, 2048), seconds: float = 0.3) -> float:
    """Returns the best float32 matrix product of this machine in FLOP/s, over square sizes."""
    squares = {size: [torch.randn(size, size) for _ in range(3)] for size in sizes}
    products = {size: partial(torch.mm, a, b, out=out) for size, (a, b, out) in squares.items()}
    return max(2 * size**3 / least for size, least in _least(products, seconds).items())
