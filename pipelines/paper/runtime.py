r"""The time of a training step against D: dense networks and CNNs, every objective.

For large sizes a step takes about :math:`t = e^a D^b`: b is near 2 if matrix products of a batch
dominate, and near 3 if factorizations do. A line is fitted to :math:`\log t = a + b \log D`. An
objective with the smaller b overtakes the other at a *crossover*.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from ebflow.objectives import OBJECTIVES
from pipelines.paper.cell import NORMAL, Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig, StepsConfig
from pipelines.paper.steps import ANCHORED
from pipelines.reporting.statistics import Confidence

LEAST = 256
"""The smallest D of the fit: below, a step has a minimum time that is no power of D."""

Times = Mapping[int, float]
"""Step times in milliseconds by D."""

DENSE = tuple(OBJECTIVES) + tuple(f"{name}{ANCHORED}" for name in ("dsm", "ssm"))
CONVOLUTIONAL = tuple(name for name in OBJECTIVES if name not in ("relative_ml", "exact_sm"))
"""Without relative_ml, which equals ml there, and exact_sm, which has D tangents."""

KINDS: dict[tuple[str, int, str], tuple[tuple[int, ...], tuple[str, ...]]] = {
    ("FC", 1, "plain"): ((8, 16, 28, 40, 56), DENSE),
    ("CNN", 1, "plain"): ((16, 28, 40), CONVOLUTIONAL),
    ("CNN", 3, "plain"): ((16, 24, 32), CONVOLUTIONAL),
    ("FC", 1, "spline"): ((28,), ("ml", "lazy_ml", "dsm", f"dsm{ANCHORED}")),
    ("CNN", 1, "circular"): ((28,), ("ml", "dsm")),
    ("CNN", 3, "circular"): ((32,), ("ml", "dsm")),
}
"""Sides of the images and objectives, by network, channels and variant. A dense network sees
colours as further pixels. Variants are timed at the side that the table shows."""

SMOKE = (8, 12, 16)

PUBLISHED = {
    ("FC", 784): {"ml": 105, "sml": 70, "ssm_vr": 30, "dsm": 15, "fd_ssm": 8},
    ("CNN", 784): {"ml": 3300, "sml": 2400},
    ("CNN", 3072): {"ml": 50000, "sml": 33000},
}
"""Milliseconds by network and D, read off the paper's figure, which does not name its GPU."""

SHOWN = {1: 28, 3: 32}
"""Side of the images in the table, by channels."""

METHOD = f"batches of 100, float32, fused Adam; exponent fitted from D = {LEAST} on"
SECONDS = {"smoke": 0.05, "cpu": 1.0, "full": 3.0}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per network and size."""
    for (net, channels, variant), (sides, objectives) in KINDS.items():
        for side in SMOKE[-len(sides) :] if config.scale == "smoke" else sides:
            labels = {"net": net, "variant": variant, "images": f"{channels}×{side}×{side}"}
            steps = StepsConfig(
                net=net, channels=channels, variant=variant, objectives=objectives, side=side,
                threads=config.threads, seconds=SECONDS[config.scale],
            )  # fmt: skip
            yield Cell(labels, steps, method=METHOD)


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns the growth of step times with D, per network, kind of images and objective."""
    kind = ["net", "channels", "variant"]
    timings = pd.concat(
        pd.read_json(one.folders[0] / "timings.json").assign(
            **one.cell.config.model_dump(include={*kind})
        )
        for one in finished
    )
    shared = finished[0].cell.provenance()
    rows = []
    for _, group in timings.groupby(kind, sort=False):
        exact = group[group["label"] == "ml"]
        rows += [
            {**shared, **_row(steps, exact)} for _, steps in group.groupby("label", sort=False)
        ]
    return rows


def _row(steps: pd.DataFrame, exact: pd.DataFrame) -> Row:
    """Returns the row of an objective on a kind of network, beside exact likelihood."""
    first, plain = steps.iloc[0], steps["variant"].iloc[0] == "plain"
    size = min(first["channels"] * SHOWN[first["channels"]] ** 2, steps["size"].max())
    shown = steps.set_index("size").loc[size]
    times, exact_times = (dict(zip(one["size"], one["ms"], strict=True)) for one in (steps, exact))
    fit, peak = exponent(times), shown["peak_fraction"]
    published = PUBLISHED.get((first["net"], size), {}) if plain else {}
    return {
        "labels": {
            "net": first["net"] if plain else f"{first['net']} {first['variant']}",
            "images": "grey" if first["channels"] == 1 else "colour",
            "objective": first["label"],
        },
        "published": published.get(first["label"]),
        "exponent": fit and fit.value,
        "exponent_se": fit and (fit.interval().high - fit.value) / NORMAL,
        "crossover": crossover(times, exact_times) if plain and first["label"] != "ml" else None,
        "time/step_ms": shown["ms"],
        "peak_percent": None if pd.isna(peak) else 100 * peak,
        "times": [list(pair) for pair in times.items()],
    }


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


RUNTIME = Experiment(
    about="step times: how they grow with D, from which D on they are below exact ML's",
    legend="±: 95 %; cross: D from which on a step is below ml's; the least D: everywhere; none: "
    "nowhere; peak: the FLOP of a step, at 28×28 (colour: 32×32; scale smoke: 16×16), of the "
    f"measured peak, %; D^: of three sizes from D = {LEAST} on, which scale smoke has not; paper: "
    "ms, read off its figure, on a GPU that is not stated",
    uses=frozenset(("threads",)),
    cells=cells,
    columns=(
        Column("exponent", "D^", 1),
        Column("crossover", "cross", 0),
        Column("peak_percent", "peak", 0),
        Column("time/step_ms", "ms", 1),
    ),
    rows=rows,
)
