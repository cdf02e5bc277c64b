"""The time of a training step against D: dense nets and CNNs, every objective."""

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.paper.benchmark.scaling import crossover, exponent
from pipelines.paper.benchmark.timing import Timing
from pipelines.paper.config import PaperConfig, StepsConfig
from pipelines.paper.experiments.cell import NORMAL, Cell, Column, Experiment, Folders, Row
from pipelines.reporting.style import panels

Kind = tuple[str, int, str]
"""Net, channels and variant; to a dense net colours are only more pixels."""

KINDS: dict[Kind, tuple[int, ...]] = {
    ("FC", 1, "plain"): (8, 16, 28, 40, 56),
    ("CNN", 1, "plain"): (16, 28, 40),
    ("CNN", 3, "plain"): (16, 24, 32),
    ("FC", 1, "spline"): (28,),
    ("FC", 1, "tanh"): (28,),
    ("CNN", 1, "circular"): (28,),
    ("CNN", 1, "masked"): (28,),
    ("CNN", 3, "circular"): (32,),
    ("CNN", 3, "masked"): (32,),
}
"""Sides of the images; variants are timed at the one that the table shows."""

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
METHOD = f"batches of 100, float32, fused Adam; exponent fitted from D = {LEAST} on"
SECONDS = {"smoke": 0.05, "cpu": 1.0, "full": 3.0}


def cells(config: PaperConfig) -> list[Cell]:
    """Returns one cell a net and size."""
    return [
        _cell(config, kind, side)
        for kind, sides in KINDS.items()
        for side in (SMOKE[-len(sides) :] if config.scale == "smoke" else sides)
    ]


def _cell(config: PaperConfig, kind: Kind, side: int) -> Cell:
    net, channels, variant = kind
    labels = {"net": net, "variant": variant, "images": f"{channels}×{side}×{side}"}
    steps = StepsConfig(
        net=net, channels=channels, variant=variant, side=side, threads=config.threads,
        seconds=SECONDS[config.scale],
    )  # fmt: skip
    return Cell(labels, steps, method=METHOD)


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns for each net, kind of images and objective how its step times grow with D."""
    kinds, provenance = _kinds(cells, folders), cells[0].provenance()
    return [{**provenance, **row} for kind in kinds for row in _rows(kind, kinds)]


def _kinds(cells: Sequence[Cell], folders: Sequence[Folders]) -> dict[Kind, list[Timing]]:
    found: dict[Kind, list[Timing]] = {}
    for cell, (folder,) in zip(cells, folders, strict=True):
        timings = json.loads((folder / "timings.json").read_text())
        kind = cell.config.net, cell.config.channels, cell.config.variant
        found.setdefault(kind, []).extend(Timing(**timing) for timing in timings)
    return found


def _rows(kind: Kind, kinds: Mapping[Kind, Sequence[Timing]]) -> Iterator[Row]:
    (net, channels, variant), timings = kind, kinds[kind]
    size, plain = channels * SHOWN[channels] ** 2, variant == "plain"
    reference = _at(kinds[net, channels, "plain"], "ml", size)
    for label in dict.fromkeys(timing.label for timing in timings):
        fit, shown = exponent(timings, label, least=LEAST), _at(timings, label, size)
        known = PUBLISHED[net, channels].get(label) if plain else None
        yield {
            "labels": {"net": net if plain else f"{net} {variant}",
                       "images": "grey" if channels == 1 else "colour", "objective": label},
            "published": {} if known is None else {"time/step_ms": known},
            "exponent": fit and fit.value,
            "exponent/low": fit and fit.low,
            "exponent/high": fit and fit.high,
            "exponent/se": fit and (fit.high - fit.value) / NORMAL,
            "crossover": _below(timings, label) if plain and label != "ml" else None,
            "time/step_ms": shown and shown.ms,
            "peak_percent": shown and shown.peak_fraction and 100 * shown.peak_fraction,
            "ml_ratio": shown and reference and reference.ms / shown.ms,
            "sizes": [[t.size, t.ms] for t in timings if t.label == label],
        }  # fmt: skip


def _below(timings: Sequence[Timing], label: str) -> float | None:
    """Returns the D from which on a step is faster than exact ML's: the least D if everywhere."""
    times, others = ({t.size: t.ms for t in timings if t.label == name} for name in (label, "ml"))
    if all(times[size] < others[size] for size in times):
        return float(min(times))
    return crossover(timings, label)


def _at(timings: Sequence[Timing], label: str, size: int) -> Timing | None:
    return next((t for t in timings if (t.label, t.size) == (label, size)), None)


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns step times against D, a panel a net and kind of images."""
    shown: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        net, images, _ = row["labels"].values()
        if len(row["sizes"]) > 1:
            shown.setdefault((net, images), []).append(row)
    figure, axes = panels(len(shown), 10, 3.8, sharey=True)
    for axis, (kind, found) in zip(axes, shown.items(), strict=True):
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
    legend="±: 95 %; cross: D from which on a step is below ml's; the least D: everywhere; none: "
    "nowhere; peak: the FLOP of a step, at 28×28 (colour: 32×32), of the measured peak, %",
    note="ms, read off the paper's figure (28×28; colour: 32×32), on a GPU that is not stated",
    source=None,
    uses=frozenset(("threads",)),
    cells=cells,
    columns=(
        Column("exponent", "D^", 1, error="exponent/se"),
        Column("crossover", "cross", 0),
        Column("peak_percent", "peak", 0),
        Column("time/step_ms", "ms", 1),
    ),
    rows=rows,
    figures=figures,
)
