"""The time of a training step of every objective on one network, beside this machine's peak.

A step is loss, backward and fused Adam on a preprocessed batch. Objectives are timed in turn,
round after round, so that slow phases of the machine affect them alike. The minimum of each is
reported. They share the flow's weights, optimizer and anchor, which do not change the cost of a
step, so that memory is that of one training.
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
"""Suffix of an objective beside an anchor of weight 1."""

INTERVAL = 100
"""Steps between refreshes of an anchor; a step's time includes this share of a refresh."""

BURST = 5
"""Steps of an objective at a time."""

Step = Callable[[], Tensor]
"""Does one training step, and returns the loss."""


def steps(config: StepsConfig, *, run: StageRun) -> None:
    """Writes ``timings.json``, objective by objective. No other stage may run meanwhile."""
    run.log_params(config.model_dump())
    torch.set_num_threads(config.threads)
    peak = measured_peak()
    rows = benchmark(net(config), config.objectives, peak=peak, seconds=config.seconds)
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


def benchmark(
    flow: Flow, labels: Sequence[str], *, peak: float, batch: int = 100, seconds: float = 2.0
) -> list[dict[str, Any]]:
    """Returns the timings of objectives.

    Each has ``size`` (D), ``label``, ``ms`` (the minimum step time) and ``peak_fraction`` (FLOP of
    the step over that time and over the machine's ``peak`` in FLOP/s; None if not counted). Slow
    objectives do at least 5 steps.
    """
    subject = Subject(flow)
    refreshed = [label for label in labels if subject.anchor_of(label)]
    refresh = _minimum({"": subject.anchor.refresh}, seconds)[""] if refreshed else 0.0
    steps = {label: subject.stepper(label, batch) for label in labels}
    flops = {label: step_flops(flow, label, batch, step) for label, step in steps.items()}
    rows = []
    for label, minimum in _minimum(steps, seconds, BURST).items():
        spent = minimum + (refresh / INTERVAL if label in refreshed else 0.0)
        fraction = None if flops[label] is None else flops[label] / (spent * peak)
        size = math.prod(flow.event_shape)
        rows.append({"size": size, "label": label, "ms": 1e3 * spent, "peak_fraction": fraction})
    return rows


def _minimum(
    actions: Mapping[str, Callable[[], object]], seconds: float, burst: int = 1
) -> dict[str, float]:
    """Returns the minimum time of each action; they take turns until each has had its seconds."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    while due := [name for name, spent in times.items() if not spent or sum(spent) < seconds]:
        for name in due:
            for _ in range(burst):
                start = time.perf_counter()
                actions[name]()
                times[name].append(time.perf_counter() - start)
    return {name: min(spent) for name, spent in times.items()}


class Subject:
    """A flow with the optimizer and the anchor that the steps of all objectives share."""

    def __init__(self, flow: Flow) -> None:
        self.flow, self.parameters = flow, list(flow.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-6, fused=True)
        self.anchor = Anchor(flow, interval=10**9)

    def anchor_of(self, label: str) -> Anchor | None:
        """Returns the anchor if the objective has one."""
        return self.anchor if label == "lazy_ml" or label.endswith(ANCHORED) else None

    def stepper(self, label: str, batch: int) -> Step:
        """Returns a training step of an objective."""
        module, count = LossModule(self.flow, self._loss(label)), itertools.count()
        noise = RowGenerator(0, "benchmark", label)
        rows = generator(0, "benchmark", label)
        x = torch.randn(batch, *self.flow.event_shape, generator=rows)

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
    """Does a step; returns its FLOP without element-wise work.

    PyTorch counts matrix products and convolutions. For every dense layer of n coordinates this
    adds LU (2/3 n³) of ``ml`` and ``sml``, the inverse for the gradient of ``ml`` (2 n³), and the
    triangular solutions of ``sml`` (2 B n²). Returns None for convolutions by ``ml`` and ``sml``.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    name = label.removesuffix(ANCHORED)
    cubic = {"ml": 8 / 3, "sml": 2 / 3}.get(name, 0.0)
    if cubic and any(isinstance(layer, Convolution) for layer in flow.layers):
        return None
    solved = 2 * batch if name == "sml" else 0
    sizes = [len(layer.weight) for layer in flow.layers if isinstance(layer, Dense)]
    return counter.get_total_flops() + sum(cubic * n**3 + solved * n**2 for n in sizes)


def measured_peak(sizes: Sequence[int] = (512, 1024, 2048), seconds: float = 0.3) -> float:
    """Returns the best float32 matrix product of this machine in FLOP/s, over square sizes."""
    squares = {n: [torch.randn(n, n) for _ in range(3)] for n in sizes}
    products = {n: partial(torch.mm, a, b, out=out) for n, (a, b, out) in squares.items()}
    return max(2 * n**3 / least for n, least in _minimum(products, seconds).items())
