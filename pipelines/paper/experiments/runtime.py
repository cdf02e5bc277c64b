"""The time of a training step against D: dense nets and CNNs, every objective."""

__all__ = ["RUNTIME", "Timed", "cells", "figures", "rows"]

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.benchmark.scaling import crossover, exponent
from pipelines.benchmark.timing import Timing
from pipelines.config import ClusterConfig, PaperConfig, StepsConfig
from pipelines.paper.experiments.cell import Column, Experiment, Folders, Row
from pipelines.reporting.machine import machine

KINDS = {("FC", 1): (8, 16, 28, 40, 56), ("CNN", 1): (16, 28, 40), ("CNN", 3): (16, 24, 32)}
"""Sides of the images, by net and channels; to a dense net colours are only more pixels."""

SMOKE = (8, 12, 16)
LEAST = 256
"""The least D that exponents are fitted to."""

PUBLISHED = {
    ("FC", 1): {"ml": 105, "sml": 70, "ssm_vr": 30, "dsm": 15, "fd_ssm": 8},
    ("CNN", 1): {"ml": 3300, "sml": 2400},
    ("CNN", 3): {"ml": 50000, "sml": 33000},
}
"""Milliseconds at 28×28, or 3×32×32, read off the paper's figure; its GPU is not stated."""

ANCHORED = " + anchor"
OTHERS = (
    "sml",
    "lazy_ml",
    "relative_ml",
    "ssm_vr",
    "ssm",
    "dsm",
    "fd_ssm",
    "taylor_sm",
    "exact_sm",
)
COLOURS = {"ml": "black"} | {name: f"C{i}" for i, name in enumerate(OTHERS)}
"""Colours in the figure, by objective; an anchored one is dotted."""

SHOWN = {1: 28, 3: 32}
SECONDS = {"smoke": 0.05, "cpu": 1.0, "full": 3.0}


@dataclass(frozen=True)
class Timed:
    """A net of one size, of which all objectives are timed.

    Attributes:
        config: Net, size and threads.
    """

    config: StepsConfig

    @property
    def title(self) -> str:
        """What tells its run from those of other nets and sizes."""
        told = self.config
        return f"{told.net}, {told.channels}×{told.side}×{told.side}"

    def on(self, cluster: ClusterConfig) -> "Timed":
        """Returns itself: a step is timed in one process."""
        return self


def cells(config: PaperConfig) -> list[Timed]:
    """Returns one cell a net and size."""
    told = {"threads": config.threads, "seconds": SECONDS[config.scale]}
    return [
        Timed(StepsConfig(net=net, channels=channels, side=side, **told))
        for (net, channels), sides in KINDS.items()
        for side in (SMOKE if config.scale == "smoke" else sides)
    ]


def rows(cells: Sequence[Timed], folders: Sequence[Folders]) -> list[Row]:
    """Returns for each net, kind of images and objective how its step times grow with D."""
    return [
        row
        for (net, channels), timings in _kinds(cells, folders).items()
        for row in _rows(net, channels, timings)
    ]


def _kinds(
    cells: Sequence[Timed], folders: Sequence[Folders]
) -> dict[tuple[str, int], list[Timing]]:
    found: dict[tuple[str, int], list[Timing]] = {}
    for cell, (folder,) in zip(cells, folders, strict=True):
        told = json.loads((folder / "timings.json").read_text())
        kind = cell.config.net, cell.config.channels
        found.setdefault(kind, []).extend(Timing(**timing) for timing in told)
    return found


def _rows(net: str, channels: int, timings: Sequence[Timing]) -> Iterator[Row]:
    for label in dict.fromkeys(timing.label for timing in timings):
        fit = exponent(timings, label, least=LEAST)
        known = PUBLISHED[net, channels].get(label)
        yield {
            "labels": {"net": net, "images": "grey" if channels == 1 else "colour",
                       "objective": label},
            "seed": 0,
            "published": {} if known is None else {"time/step_ms": known},
            "data": "random",
            "machine": machine(),
            "method": f"batches of 100, float32, fused Adam; exponent fitted from D = {LEAST} on",
            "exponent": fit and fit.value,
            "exponent/low": fit and fit.low,
            "exponent/high": fit and fit.high,
            "crossover": None if label == "ml" else _below(timings, label),
            "time/step_ms": _at(timings, label, channels * SHOWN[channels] ** 2),
            "sizes": [[t.size, t.ms] for t in timings if t.label == label],
        }  # fmt: skip


def _below(timings: Sequence[Timing], label: str) -> float | None:
    """Returns the D from which on a step is faster than exact ML's: the least D if everywhere."""
    times, others = ({t.size: t.ms for t in timings if t.label == name} for name in (label, "ml"))
    if all(times[size] < others[size] for size in times):
        return float(min(times))
    return crossover(timings, label)


def _at(timings: Sequence[Timing], label: str, size: int) -> float | None:
    return next((t.ms for t in timings if (t.label, t.size) == (label, size)), None)


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns step times against D, a panel a net and kind of images."""
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        labels: Mapping[str, str] = row["labels"]
        panels.setdefault((labels["net"], labels["images"]), []).append(row)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (kind, found) in zip(axes, panels.items(), strict=True):
        _panel(axis, found)
        axis.set_title(", ".join(kind))
    axes[0].set_ylabel("step time (ms)")
    axes[0].legend(fontsize=8)
    return {"runtime": figure}


def _panel(axis: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        sizes, times = np.array(row["sizes"]).T
        name = row["labels"]["objective"]
        base = name.removesuffix(ANCHORED)
        style = {"color": COLOURS[base], "ls": "-" if name == base else ":", "lw": 1.2}
        axis.plot(sizes, times, marker=".", label=name, **style)
    axis.set(xscale="log", yscale="log", xlabel="D")
    ticks = sorted({size for row in rows for size, _ in row["sizes"]})
    axis.set_xticks(ticks, [str(int(tick)) for tick in ticks], rotation=45)
    axis.minorticks_off()


RUNTIME = Experiment(
    about="step times: how they grow with D, from which D on they are below exact ML's",
    legend="cross: D from which on a step is below ml's; the least D: everywhere; none: nowhere",
    note="ms, read off the paper's figure (28×28; colour: 32×32), on a GPU that is not stated",
    source=None,
    uses=frozenset(("threads",)),
    cells=cells,
    columns=(
        Column("exponent", "D^", 2),
        Column("exponent/low", "low", 2),
        Column("exponent/high", "high", 2),
        Column("crossover", "cross", 0),
        Column("time/step_ms", "ms", 1),
    ),
    rows=rows,
    figures=figures,
)
