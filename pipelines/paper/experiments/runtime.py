r"""The time of a training step against D: dense networks and CNNs, every objective.

For large sizes a step takes about :math:`t = e^a D^b`: b is near 2 if matrix products of a batch
dominate, and near 3 if factorizations do. A line is fitted to :math:`\log t = a + b \log D`. An
objective with the smaller b overtakes the other at a *crossover*.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ebflow.objectives import OBJECTIVES
from pipelines.paper.config import PaperConfig, StepsConfig
from pipelines.paper.experiments.cell import NORMAL, Cell, Column, Experiment, Finished, Row
from pipelines.paper.steps import ANCHORED
from pipelines.reporting.statistics import Confidence
from pipelines.reporting.style import Captioned, panels

LEAST = 256
"""The smallest D of the fit: below, a step has a minimum time that is no power of D."""

Times = Mapping[int, float]
"""Step times in milliseconds by D."""

Kind = tuple[str, int, str]
"""Network, channels and variant. A dense network sees colours as further pixels."""

KINDS: dict[Kind, tuple[int, ...]] = {
    ("FC", 1, "plain"): (8, 16, 28, 40, 56),
    ("CNN", 1, "plain"): (16, 28, 40),
    ("CNN", 3, "plain"): (16, 24, 32),
    ("FC", 1, "spline"): (28,),
    ("CNN", 1, "circular"): (28,),
    ("CNN", 3, "circular"): (32,),
}
"""Sides of the images; variants are timed at the side that the table shows."""

SMOKE = (8, 12, 16)

PUBLISHED = {
    ("FC", 1): {"ml": 105, "sml": 70, "ssm_vr": 30, "dsm": 15, "fd_ssm": 8},
    ("CNN", 1): {"ml": 3300, "sml": 2400},
    ("CNN", 3): {"ml": 50000, "sml": 33000},
}
"""Milliseconds at 28×28, or 3×32×32, read off the paper's figure, which does not name its GPU."""

SHOWN = {1: 28, 3: 32}
"""Side of the images in the table, by channels."""

METHOD = f"batches of 100, float32, fused Adam; exponent fitted from D = {LEAST} on"
SECONDS = {"smoke": 0.05, "cpu": 1.0, "full": 3.0}

Timings = dict[str, dict[int, dict[str, Any]]]
"""The stage's measurements, by objective and D."""


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per network and size."""
    for (net, channels, variant), sides in KINDS.items():
        for side in SMOKE[-len(sides) :] if config.scale == "smoke" else sides:
            labels = {"net": net, "variant": variant, "images": f"{channels}×{side}×{side}"}
            steps = StepsConfig(
                net=net, channels=channels, variant=variant, side=side, threads=config.threads,
                seconds=SECONDS[config.scale],
            )  # fmt: skip
            yield Cell(labels, steps, method=METHOD)


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns the growth of step times with D, per network, kind of images and objective."""
    kinds: dict[Kind, Timings] = {}
    for one in finished:
        config = one.cell.config
        timings = kinds.setdefault((config.net, config.channels, config.variant), {})
        for timing in json.loads((one.folders[0] / "timings.json").read_text()):
            timings.setdefault(timing["label"], {})[timing["size"]] = timing
    provenance = finished[0].cell.provenance()
    return [{**provenance, **_row(kind, label, kinds)} for kind in kinds for label in kinds[kind]]


def _row(kind: Kind, label: str, kinds: Mapping[Kind, Timings]) -> Row:
    (net, channels, variant), plain = kind, kind[-1] == "plain"
    timings, exact = kinds[kind][label], kinds[kind]["ml"]
    published_size = channels * SHOWN[channels] ** 2
    size = min(published_size, max(exact))
    times, exact_times = ({d: one["ms"] for d, one in of.items()} for of in (timings, exact))
    fit = exponent(times)
    value, low, high = fit.interval() if fit else (None, None, None)
    ms, peak = (
        timings[size][name] if size in timings else None for name in ("ms", "peak_fraction")
    )
    reference = kinds[net, channels, "plain"]["ml"].get(size)
    number = PUBLISHED[net, channels].get(label) if plain and size == published_size else None
    return {
        "labels": {"net": net if plain else f"{net} {variant}",
                   "images": "grey" if channels == 1 else "colour", "objective": label},
        "published": {} if number is None else {"time/step_ms": number},
        "exponent": value,
        "exponent/low": low,
        "exponent/high": high,
        "exponent/se": fit and (high - value) / NORMAL,
        "crossover": crossover(times, exact_times) if plain and label != "ml" else None,
        "time/step_ms": ms,
        "peak_percent": peak and 100 * peak,
        "ml_ratio": ms and reference and reference["ms"] / ms,
        "sizes": [list(pair) for pair in times.items()],
    }  # fmt: skip


def exponent(times: Times) -> Confidence | None:
    """Returns the exponent b; None below three sizes.

    Its interval treats deviations from the line as independent noise, though some are curvature.
    """
    rows = [(size, ms) for size, ms in times.items() if size >= LEAST]
    if len(rows) < 3:
        return None
    fit = stats.linregress(*np.log(rows).T)
    return Confidence(float(fit.slope), float(fit.stderr), len(rows) - 2)


def crossover(times: Times, reference: Times) -> float | None:
    """Returns the D from which on a step is faster than another: the least D if everywhere.

    The logarithm of the ratio of their times is interpolated in log D, between the largest size
    at which it is slower and the next. None if it is slower at the largest size of both.
    """
    sizes = sorted(times.keys() & reference.keys())
    leads = [math.log(reference[size] / times[size]) for size in sizes]
    slower = [index for index, lead in enumerate(leads) if lead < 0]
    if not slower:
        return float(sizes[0])
    if slower[-1] == len(sizes) - 1:
        return None
    pair = slice(slower[-1], slower[-1] + 2)
    return float(np.exp(np.interp(0.0, leads[pair], np.log(sizes[pair]))))


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    """Returns step times against D, one panel per network and kind of images."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        net, images, _ = row["labels"].values()
        if len(row["sizes"]) > 1:
            kinds.setdefault(f"{net}, {images}", []).append(row)
    colours = {name: f"C{i - 1}" if i else "black" for i, name in enumerate(OBJECTIVES)}
    figure, axes = panels(len(kinds), 10, 3.8, sharey=True)
    for axis, (kind, group) in zip(axes, kinds.items(), strict=True):
        for row in group:
            sizes, times = np.array(row["sizes"]).T
            name = row["labels"]["objective"]
            objective = name.removesuffix(ANCHORED)
            style = {"color": colours[objective], "ls": "-" if name == objective else ":"}
            axis.plot(sizes, times, marker=".", label=name, lw=1.2, **style)
        axis.set(xscale="log", yscale="log", xlabel="D", title=kind)
        ticks = sorted({size for row in group for size, _ in row["sizes"]})
        axis.set_xticks(ticks, [str(int(tick)) for tick in ticks], rotation=45)
        axis.minorticks_off()
    axes[0].set_ylabel("step time (ms)")
    axes[0].legend(fontsize=8)
    return {"runtime": (figure, "Dotted: beside an anchor.")}


RUNTIME = Experiment(
    about="step times: how they grow with D, from which D on they are below exact ML's",
    legend="±: 95 %; cross: D from which on a step is below ml's; the least D: everywhere; none: "
    "nowhere; peak: the FLOP of a step, at 28×28 (colour: 32×32; scale smoke: 16×16), of the "
    f"measured peak, %; D^: of three sizes from D = {LEAST} on, which scale smoke has not",
    note="ms, read off the paper's figure (28×28; colour: 32×32), on a GPU that is not stated",
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
