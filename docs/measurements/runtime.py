"""The time of a training step against D: dense networks and CNNs, every objective.

    python docs/measurements/runtime.py [--smoke] [--dense --batch 512]

prints the tables of ``steps.md``. Nothing else should run on the machine.

A step grows about as D² if matrix products of a batch dominate, and as D³ if factorizations do. So
one objective overtakes the other at a *crossover*, here the least measured D from which on it is
faster.

A step is loss, backward and fused Adam on a preprocessed batch. Objectives are timed in turn, so
that slow phases of the machine affect them alike. The minimum of each is reported. They share the
flow's weights, optimizer and anchor, so that memory is that of one training.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, takewhile
from typing import Any

import pandas as pd
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

Times = Mapping[int, float]  # Step times in milliseconds by D

ANCHORED = " + anchor"  # Suffix of an objective beside an anchor of weight 1

# Steps between refreshes of an anchor; a step's time includes this share of a refresh.
INTERVAL = 100

BURST = 5  # Steps of an objective at a time, and so the least of a slow one

Step = Callable[[], Tensor]  # Does one training step, and returns the loss

LEAKY = {"depth": 2, "activation": "smooth_leaky_relu", "noise": 0.1, "calibrated": False}
FC = MODELS["dense"](**LEAKY)
CNN = MODELS["convolutional"](kernel_size=7, hidden=0, sign=-1, **LEAKY)

DENSE = tuple(OBJECTIVES) + tuple(f"{name}{ANCHORED}" for name in ("dsm", "ssm"))

# Without relative_ml, which equals ml there.
CONVOLUTIONAL = tuple(name for name in OBJECTIVES if name != "relative_ml")

SPLINE = FC.changed(activation="spline")

# Network, sides of the images and objectives, by names of network and images.
KINDS: dict[tuple[str, str], tuple[Model, tuple[int, ...], tuple[str, ...]]] = {
    ("FC", "grey"): (FC, (8, 16, 28, 40, 56), DENSE),
    ("CNN", "grey"): (CNN, (16, 28, 40), CONVOLUTIONAL),
    ("CNN", "colour"): (CNN, (16, 24, 32), CONVOLUTIONAL),
    ("FC spline", "grey"): (SPLINE, (28,), ("ml", "lazy_ml", "dsm", f"dsm{ANCHORED}")),
}

CHANNELS = {"grey": 1, "colour": 3}
SMOKE = (8, 12, 16)  # Sides of a short run


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


def table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Returns milliseconds by objective and D, and the crossover."""
    shown = by_size(rows, "ms")
    times = {label: dict(line) for label, line in shown.iterrows()}
    faster = [crossover(own, times["ml"]) for own in times.values()]
    return shown.assign(**{"faster from D": faster})


def by_size(rows: Sequence[Mapping[str, Any]], column: str) -> pd.DataFrame:
    """Returns a column of timings by objective and D."""
    values = pd.DataFrame(rows).set_index(["label", "size"])[column].astype(float).unstack()
    return values.reindex([*dict.fromkeys(row["label"] for row in rows)])


def main(
    sides: Sequence[int], seconds: float, threads: int, batch: int = 100, kinds: int = len(KINDS)
) -> None:
    """Prints a table for each network and kind of images, the first ``kinds`` of them.

    ``sides`` replace those of the page.
    """
    torch.set_num_threads(threads)
    peak = measured_peak()
    for (network, images), (model, own, objectives) in [*KINDS.items()][:kinds]:
        rows: list[dict[str, Any]] = []
        for side in sides[-len(own) :] or own:
            shape = (CHANNELS[images], side, side)
            shape = (math.prod(shape),) if model.architecture == "dense" else shape
            weights = generator(0, "benchmark")
            flow = build_flow(model, shape, generator=weights, dtype=torch.float32)
            rows += benchmark(flow, objectives, peak=peak, batch=batch, seconds=seconds)
        tables = {"ms": table(rows)}
        tables["% of the peak"] = 100 * by_size(rows, "peak_fraction")
        tables[f"% of products of {batch} rows"] = 100 * by_size(rows, "batch_fraction")
        for title, values in tables.items():
            print(f"\n{network}, {images}: {title}\n{values.round(1).to_string(na_rep='')}")


def crossover(times: Times, reference: Times) -> int | None:
    """Returns the least measured D from which on a step is faster than another; None without."""
    sizes = sorted(times.keys() & reference.keys(), reverse=True)
    faster = [*takewhile(lambda size: times[size] < reference[size], sizes)]
    return faster[-1] if faster else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="small images, for a moment")
    parser.add_argument("--batch", type=int, default=100, help="rows of a step")
    parser.add_argument("--dense", action="store_true", help="dense networks alone")
    options = parser.parse_args()
    kinds = 1 if options.dense else len(KINDS)
    main(*(SMOKE, 0.01, 1) if options.smoke else ((), 1.0, 2), options.batch, kinds)
