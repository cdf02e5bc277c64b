"""The time of a training step against D: dense networks and CNNs, every objective.

A step grows about as D² if matrix products of a batch dominate, and as D³ if factorizations do. So
one objective overtakes the other at a *crossover*, here the least measured D from which on it is
faster.

The stage ``runtime`` measures the steps on one network, beside this machine's peak. A step is
loss, backward and fused Adam on a preprocessed batch. Objectives are timed in turn, round after
round, so that slow phases of the machine affect them alike. The minimum of each is reported. They
share the flow's weights, optimizer and anchor, which do not change the cost of a step, so that
memory is that of one training.
"""

import json
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
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig, StepsConfig
from pipelines.tracking.run import StageRun
from pipelines.training.build import build_flow

Times = Mapping[int, float]
"""Step times in milliseconds by D."""

ANCHORED = " + anchor"
"""Suffix of an objective beside an anchor of weight 1."""

INTERVAL = 100
"""Steps between refreshes of an anchor; a step's time includes this share of a refresh."""

BURST = 5
"""Steps of an objective at a time."""

Step = Callable[[], Tensor]
"""Does one training step, and returns the loss."""

LEAKY = {"depth": 2, "activation": "smooth_leaky_relu", "noise": 0.1, "calibrated": False}
FC = MODELS["dense"](**LEAKY)
CNN = MODELS["convolutional"](kernel_size=7, hidden=0, sign=-1, **LEAKY)

DENSE = tuple(OBJECTIVES) + tuple(f"{name}{ANCHORED}" for name in ("dsm", "ssm"))
CONVOLUTIONAL = tuple(name for name in OBJECTIVES if name not in ("relative_ml", "exact_sm"))
"""Without relative_ml, which equals ml there, and exact_sm, which has D tangents."""

SPLINE = FC.changed(activation="spline")
KINDS: dict[tuple[str, str], tuple[Model, tuple[int, ...], tuple[str, ...]]] = {
    ("FC", "grey"): (FC, (8, 16, 28, 40, 56), DENSE),
    ("CNN", "grey"): (CNN, (16, 28, 40), CONVOLUTIONAL),
    ("CNN", "colour"): (CNN, (16, 24, 32), CONVOLUTIONAL),
    ("FC spline", "grey"): (SPLINE, (28,), ("ml", "lazy_ml", "dsm", f"dsm{ANCHORED}")),
}
"""Network, sides of the images and objectives, by names of network and images. The last one is
timed at the side that the table shows."""

CHANNELS = {"grey": 1, "colour": 3}
SHOWN = {"grey": 28 * 28, "colour": 3 * 32 * 32}
"""D of the images in the table."""

SMOKE = (8, 12, 16)

PUBLISHED = {
    ("FC", 784): {"ml": 105, "sml": 70, "ssm_vr": 30, "dsm": 15, "fd_ssm": 8},
    ("CNN", 784): {"ml": 3300, "sml": 2400},
    ("CNN", 3072): {"ml": 50000, "sml": 33000},
}
"""Milliseconds by network and D, read off the paper's figure, which does not name its GPU."""

SECONDS = {"smoke": 0.05, "cpu": 1.0, "full": 3.0}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per network and size."""
    for (net, images), (model, sides, objectives) in KINDS.items():
        for side in SMOKE[-len(sides) :] if config.scale == "smoke" else sides:
            shape = (CHANNELS[images], side, side)
            steps = StepsConfig(
                model=model,
                shape=(math.prod(shape),) if model.architecture == "dense" else shape,
                objectives=objectives,
                seconds=SECONDS[config.scale],
                threads=config.threads,
            )
            labels = {"net": net, "images": images, "side": str(side)}
            yield Cell(labels, steps)


def runtime(config: StepsConfig, *, run: StageRun) -> None:
    """Writes ``timings.json``, objective by objective. No other stage may run meanwhile."""
    run.log_params(config.model_dump())
    torch.set_num_threads(config.threads)
    weights = generator(0, "benchmark")
    flow = build_flow(config.model, config.shape, generator=weights, dtype=torch.float32)
    rows = benchmark(flow, config.objectives, peak=measured_peak(), seconds=config.seconds)
    (run.output / "timings.json").write_text(json.dumps(rows, indent=1) + "\n")
    run.log_metrics(
        {f"time/step_ms/{row['label'].replace(' + ', '_')}": row["ms"] for row in rows}
    )


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
        module, steps = LossModule(self.flow, self._loss(label)), count()
        noise = RowGenerator(0, "benchmark", label)
        rows = generator(0, "benchmark", label)
        x = torch.randn(batch, *self.flow.event_shape, generator=rows)

        def step() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            value: Tensor = module(x, None, noise, Progress(next(steps)))[0].mean()
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


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns the growth of step times with D, per network, kind of images and objective."""
    frames = [
        pd.read_json(one.folders[0] / "timings.json").assign(**one.cell.labels) for one in finished
    ]
    timings, shared = pd.concat(frames), finished[0].cell.provenance()
    exact = timings[timings["label"] == "ml"].groupby(["net", "images"])
    return [
        {**shared, **_row(*names, steps, exact.get_group(names[:2]))}
        for names, steps in timings.groupby(["net", "images", "label"], sort=False)
    ]


def _row(net: str, images: str, objective: str, steps: pd.DataFrame, exact: pd.DataFrame) -> Row:
    """Returns the numbers of an objective on a kind of network, beside exact likelihood."""
    size = min(SHOWN[images], steps["size"].max())
    shown = steps.set_index("size").loc[size]
    times, exact_times = (dict(zip(one["size"], one["ms"], strict=True)) for one in (steps, exact))
    peak, alone = shown["peak_fraction"], len(times) == 1 or objective == "ml"
    return {
        "labels": {"net": net, "images": images, "objective": objective},
        "published": PUBLISHED.get((net, size), {}).get(objective),
        "crossover": None if alone else crossover(times, exact_times),
        "time/step_ms": shown["ms"],
        "peak_percent": None if pd.isna(peak) else 100 * peak,
        "times": [list(pair) for pair in times.items()],
    }


def crossover(times: Times, reference: Times) -> int | None:
    """Returns the least measured D from which on a step is faster than another; None without."""
    sizes = sorted(times.keys() & reference.keys(), reverse=True)
    faster = [*takewhile(lambda size: times[size] < reference[size], sizes)]
    return faster[-1] if faster else None


RUNTIME = Experiment(
    about="step times, and from which D on they are below exact ML's",
    legend="batches of 100, float32, fused Adam; cross: the least measured D from which on a step "
    "is below ml's; peak: the FLOP of a step, at 28×28 (colour: 32×32; scale smoke: 16×16), of "
    "the measured peak, %; paper: ms, read off its figure, on a GPU that is not stated",
    uses=frozenset(("threads",)),
    cells=cells,
    columns=(
        Column("crossover", "cross", 0),
        Column("peak_percent", "peak", 0),
        Column("time/step_ms", "ms", 1),
    ),
    rows=rows,
)
