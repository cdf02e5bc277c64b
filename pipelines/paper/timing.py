"""Times of training steps: every objective on one network, in turns.

A step is loss, backward and fused Adam on a preprocessed batch. Objectives are timed in turn, so
that slow phases of the machine affect them alike. The minimum of each is reported. They share the
flow's weights, optimizer and anchor, so that memory is that of one training.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ebflow.anchor import Anchor
from ebflow.bijections import Convolution, Dense
from ebflow.flow import Flow
from ebflow.loss import Loss, LossModule, Progress
from ebflow.objectives import OBJECTIVES, lazy_ml
from ebflow.randomness import RowGenerator, generator
from pipelines.config.model import MODELS, Model
from pipelines.training.flow_training import build_flow

ANCHORED = " + anchor"  # Suffix of an objective beside an anchor of weight 1

# Steps between refreshes of an anchor; a step's time includes this share of a refresh.
INTERVAL = 100

BURST = 5  # Steps of an objective at a time, and so the least of a slow one

Step = Callable[[], Tensor]  # Does one training step, and returns the loss

LEAKY = {"depth": 2, "activation": "smooth_leaky_relu", "noise": 0.1, "calibrated": False}

# The paper's networks; their sizes are those of the images.
NETWORKS: dict[str, Model] = {
    "FC": MODELS["dense"](**LEAKY),
    "CNN": MODELS["convolutional"](kernel_size=7, hidden=0, sign=-1, **LEAKY),
}


def build(model: Model, channels: int, side: int) -> Flow:
    """Returns a new flow of square images in float32; dense layers see rows of pixels."""
    shape = (channels, side, side)
    shape = (math.prod(shape),) if model.architecture == "dense" else shape
    weights = generator(0, "benchmark")
    return build_flow(model, shape, generator=weights, dtype=torch.float32)


def benchmark(
    flow: Flow, labels: Sequence[str], *, peak: float, batch: int = 100, seconds: float = 2.0
) -> list[dict[str, Any]]:
    """Returns the timings of objectives.

    Each has ``size`` (D), ``label``, ``ms`` (the minimum step time) and ``peak_fraction`` (FLOP of
    the step over that time and over the machine's ``peak`` in FLOP/s; None if not counted).
    ``batch_fraction`` is the same over the FLOP/s of products of a batch with a D×D matrix, which
    a step could reach.
    """
    anchor = Anchor(flow, interval=10**9)
    steps = training_steps(flow, labels, batch, anchor)
    refreshed = {label for label in labels if _loss(label, anchor).anchor}
    refresh = _minimum({"": anchor.refresh}, seconds)[""] if refreshed else 0.0
    flops = {label: step_flops(flow, label, batch, step) for label, step in steps.items()}
    rows, size = [], math.prod(flow.event_shape)
    of_batch = peak / rate((batch, size, size), seconds)
    for label, minimum in _minimum(steps, seconds, BURST).items():
        spent = minimum + (refresh / INTERVAL if label in refreshed else 0.0)
        fraction = None if flops[label] is None else flops[label] / (spent * peak)
        rows.append({"size": size, "label": label, "ms": 1e3 * spent, "peak_fraction": fraction,
                     "batch_fraction": fraction and fraction * of_batch})  # fmt: skip
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


def training_steps(
    flow: Flow, labels: Sequence[str], batch: int, anchor: Anchor
) -> dict[str, Step]:
    """Returns a training step of each objective; they share weights, optimizer and anchor."""
    parameters = list(flow.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)

    def step(module: LossModule, x: Tensor, noise: RowGenerator, numbers: Iterator[int]) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value: Tensor = module(x, None, noise, Progress(next(numbers)))[0].mean()
        value.backward(inputs=parameters)
        optimizer.step()
        return value.detach()

    steps = {}
    for label in labels:
        module = LossModule(flow, _loss(label, anchor))
        x = torch.randn(batch, *flow.event_shape, generator=generator(0, "benchmark", label))
        steps[label] = partial(step, module, x, RowGenerator(0, "benchmark", label), count())
    return steps


def _loss(label: str, anchor: Anchor) -> Loss:
    if label == "lazy_ml":
        return Loss(partial(lazy_ml, anchor=anchor), anchor=anchor)
    if label.endswith(ANCHORED):
        return Loss(OBJECTIVES[label.removesuffix(ANCHORED)], anchor=anchor, anchor_weight=1.0)
    return Loss(OBJECTIVES[label])


def step_flops(flow: Flow, label: str, batch: int, step: Step) -> float | None:
    """Does a step; returns its FLOP without element-wise work.

    PyTorch counts matrix products and convolutions. This adds for every dense layer of n
    coordinates: LU of ``ml`` and ``sml`` (2/3 n³), the inverse for the gradient of ``ml`` (2 n³),
    and the triangular solutions of ``sml`` (2 B n²). Returns None for convolutions by ``ml`` and
    ``sml``.
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
    return max(rate((n, n, n), seconds) for n in sizes)


def rate(sizes: tuple[int, int, int], seconds: float) -> float:
    """Returns the FLOP/s of a product of matrices with shapes (B, N) and (N, M)."""
    rows, inner, columns = sizes
    a, b, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
    return 2 * math.prod(sizes) / _minimum({"": partial(torch.mm, a, b, out=out)}, seconds)[""]
