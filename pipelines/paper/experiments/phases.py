"""The experiment ``phases``: a map of the trainings that lose mass by scores alone.

The *map* crosses activation, start, preprocessing, learning rate and objective at D = 64. At the D
of larger images it has fewer starts, whitened data and the first seed alone. The *pairs* are fewer
and longer: scores alone, and exact likelihood of the published network. Each seed has its own
split of the data, order of batches and noise; starts are the same for all seeds.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from pipelines.config import ObjectiveConfig
from pipelines.paper.config import PaperConfig, StackConfig
from pipelines.paper.experiments.cell import (
    IMAGE_OPTIONS,
    Cell,
    Column,
    Experiment,
    Finished,
    Row,
    data,
)
from pipelines.paper.experiments.phases_claims import DIGITS, conclude
from pipelines.paper.experiments.phases_rule import (
    ACTIVATIONS,
    EARLY,
    FAST,
    LOST,
    MAP,
    PAIRS,
    PLAIN,
    PUBLISHED,
    SLOW,
    STARTS,
    WIDE,
    judged,
    pair,
    where,
)
from pipelines.paper.stack import NETS
from pipelines.reporting.style import BASELINE, DATA, FLOW, Captioned, panels

SCORES = (
    *(ObjectiveConfig(name="dsm", sigma=sigma) for sigma in (0.1, 0.3, 1.0)),
    ObjectiveConfig(name="ssm"),
    ObjectiveConfig(name="ssm_vr"),
)
DENOISING, LIKELIHOOD = SCORES[1], ObjectiveConfig(name="ml")
"""Objectives of the pairs."""

PAIR_RATES = (5e-3, 1e-2, 2e-2, 4e-2)
"""The best of these by validation counts."""

STEPS = {
    "smoke": {MAP: 30, WIDE: 30, PAIRS: 30},
    "cpu": {MAP: 600, WIDE: 300, PAIRS: 1_500},
    "full": {MAP: 6_000, WIDE: 2_500, PAIRS: 20_000},
}
"""Training steps, by scale and part."""


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the map, for the first seed also a part of it on larger images, and the pairs."""
    narrow = {"preprocessings": ("whitened", "plain"), "starts": STARTS, "rates": (SLOW, FAST)}
    wide = {"starts": (PLAIN, PUBLISHED), "rates": (5e-4, 2e-3), "threads": config.threads}
    pairs = {"starts": (PLAIN,), "rates": PAIR_RATES}
    images = data(config, "mnist")
    ways = [
        *((MAP, DIGITS, *way, narrow) for way in product(ACTIVATIONS, SCORES)),
        *((WIDE, images, *way, wide) for way in product(ACTIVATIONS, SCORES)),
        (PAIRS, DIGITS, "published", LIKELIHOOD, pairs | {"starts": (PUBLISHED, PLAIN)}),
        *((PAIRS, DIGITS, activation, DENOISING, pairs) for activation in ("centred", "learned")),
    ]
    for part, source, activation, objective, options in ways:
        if part == WIDE and seed != config.seed:
            continue
        steps = STEPS[config.scale][part]
        stack = StackConfig(
            part=part, activation=activation, objective=objective, seed=seed, steps=steps,
            looks=_looks(steps, 10 if part == PAIRS else 4), **options,
        )  # fmt: skip
        labels = {"part": part, "f": activation, "objective": stack.objective_label}
        yield Cell(labels, stack, seed, source.changed(seed=seed))


def _looks(steps: int, parts: int) -> tuple[int, ...]:
    """Returns the steps that the rule needs, and those that end equal parts of a training."""
    equal = (round(steps * part / parts) for part in range(parts + 1))
    return tuple(sorted({*(step for step in EARLY if step <= steps), *equal}))


def read(finished: Sequence[Finished]) -> pd.DataFrame:
    """Returns all networks, indexed by the place of their cell."""
    nets = [pd.read_parquet(one.folders[0] / NETS) for one in finished]
    return judged(pd.concat(nets, keys=range(len(nets)), names=["place", None]))


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per cell and preprocessing, over starts and rates.

    The row of a pair has its better start and rate of all seeds.
    """
    nets = read(finished)
    best = pd.concat([pair(nets, name) for name in ACTIVATIONS]).index
    shown = nets[(nets["part"] != PAIRS) | nets.index.isin(best)]
    groups = shown.groupby(["place", "preprocessing"], sort=False)
    return [
        _row(finished[place].cell, preprocessing, group)
        for (place, preprocessing), group in groups
    ]


def _row(cell: Cell, preprocessing: str, nets: pd.DataFrame) -> Row:
    config = cell.config
    labels = {"part": config.part, "D": str(nets["width"].iloc[0]), "data": preprocessing,
              "f": config.activation, "objective": config.objective_label}  # fmt: skip
    return {
        **cell.provenance(),
        "labels": labels,
        "method": f"{len(nets)} nets of two dense layers, {config.steps} steps of Adam under a "
        "cosine, batches of 100",
        "study/nets": len(nets),
        "study/lost": 100 * float(nets["lost"].mean()),
        "study/late": 100 * float(nets["late"].mean()),
        "study/over_gaussian": float((nets["best"] - nets["gaussian"]).min()),
    }


CAPTIONS = {
    "map": "A square is a net at D = 64, the mean over seeds. Above: the squared latent mean per "
    f"element in the end; white is {LOST:g}, red has lost mass; a dot: large and still falling, "
    "from a distant start, for half of the seeds. Below: the NLL above the Gaussian's; blue is a "
    "density better than it. Black: not finite.",
    "wide": "The same at the larger D.",
    "pairs": "NLL on validation digits above the Gaussian's over training, the mean over seeds, "
    "each with a split of its own, and their range; each "
    "at the best of four learning rates, exact likelihood at the better of two starts.",
}

COLOURS = {"published": BASELINE, "centred": "#e0a526", "learned": FLOW}
EDGES = (1e-3, 30.0)
"""Limits of the colours of the squared latent mean per element."""

LINE, COLUMN = ["preprocessing", "start"], ["objective", "rate"]
"""The columns of a network that are lines and columns of the map."""

SHADES = {
    "squared latent mean\nan element, log₁₀": (
        TwoSlopeNorm(np.log10(LOST), *np.log10(EDGES)), "RdYlBu_r",
    ),
    "NLL above the Gaussian's\nan element, nats": (TwoSlopeNorm(0.0, -0.1, 1.0), "RdBu_r"),
}  # fmt: skip
"""Scale and colours of the squares, by column of the shaded networks."""


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    return draw(read(finished))


def draw(nets: pd.DataFrame) -> dict[str, Captioned]:
    """Returns the map at both sizes, and the curves of the pairs."""
    shaded = _shaded(nets)
    made = {
        "map": _map(where(shaded, part=MAP), (11, 8.4)),
        "wide": _map(where(shaded, part=WIDE), (9, 5.2)),
        "pairs": _pair_curves(nets),
    }
    return {name: (figure, CAPTIONS[name]) for name, figure in made.items()}


def _shaded(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns networks with the values of their colours; NaN if they became non-finite."""
    last = nets["nll"].map(lambda nll: nll[-1])
    above = (last - nets["gaussian"]) / nets["width"]
    values = (np.log10(nets["end"].clip(*EDGES)), above.clip(-0.1, 1.0))
    shades = zip(SHADES, values, strict=True)
    return nets.assign(**{label: value.where(np.isfinite(last)) for label, value in shades})


def _map(nets: pd.DataFrame, size: tuple[float, float]) -> Figure:
    shared = {"sharex": True, "sharey": True}
    figure, axes = panels(len(ACTIVATIONS), *size, down=len(SHADES), **shared)
    lines, columns = (
        pd.MultiIndex.from_frame(nets[by].drop_duplicates()) for by in (LINE, COLUMN)
    )
    for label, row in zip(SHADES, axes, strict=True):
        for activation, axis in zip(ACTIVATIONS, row, strict=True):
            shown = _squares(axis, label, where(nets, activation=activation), lines, columns)
        figure.colorbar(shown, ax=row, label=label, shrink=0.8, pad=0.01)
    for activation, axis in zip(ACTIVATIONS, axes[0], strict=True):
        axis.set_title(activation)
    axes[0, 0].invert_yaxis()
    across = [f"{objective}, {rate:g}" for objective, rate in columns]
    axes[0, 0].set_xticks(np.arange(len(columns)) + 0.5, across)
    axes[0, 0].set_yticks(np.arange(len(lines)) + 0.5, ["  ".join(line) for line in lines])
    return figure


def _squares(
    axis: Axes, label: str, nets: pd.DataFrame, lines: pd.MultiIndex, columns: pd.MultiIndex
) -> mpl.cm.ScalarMappable:
    """Draws networks as squares, the mean over seeds; black if one became non-finite.

    A dot marks cells of which half of the means are still falling.
    """
    shade, late = (
        nets.pivot_table(name, LINE, COLUMN, aggfunc=lambda values: values.mean(skipna=False))
        .reindex(index=lines, columns=columns)
        .to_numpy(float)
        for name in (label, "late")
    )
    norm, colours = SHADES[label]
    cmap = mpl.colormaps[colours].with_extremes(bad="black")
    shown = axis.pcolormesh(shade, cmap=cmap, norm=norm, edgecolors="white", lw=1.5)
    down, across = np.nonzero(late >= 0.5)
    axis.plot(across + 0.5, down + 0.5, ".", color="black", ms=3)
    axis.grid(visible=False)
    axis.tick_params(length=0, labelsize=7)
    axis.tick_params("x", rotation=90)
    return shown


def _pair_curves(nets: pd.DataFrame) -> Figure:
    figure, axis = panels(width=7, height=3.6)
    for name, colour in COLOURS.items():
        group = pair(nets, name)
        first = group.iloc[0]
        values = np.stack(group["nll"]) - group[["gaussian"]].to_numpy()
        label = f"{first['objective']}, {name}, rate {first['rate']:g}"
        axis.plot(first["steps"], values.mean(0), marker=".", color=colour, label=label)
        spread = (values.min(0), values.max(0))
        axis.fill_between(first["steps"], *spread, color=colour, alpha=0.2, lw=0)
    axis.axhline(0, color=DATA, ls="--", lw=1, label="full-covariance Gaussian")
    axis.set(xlabel="step", ylabel="validation NLL above the Gaussian's (nats)", ylim=(None, 8))
    axis.legend()
    return figure


PHASES = Experiment(
    about="where training by scores alone loses mass, and what keeps it",
    legend="lost: share of nets, over starts and rates, whose squared latent mean ends large and "
    "has risen; late: large, still falling; over Gauss: validation NLL of the best net at its "
    "best look above the full-covariance Gaussian's, nats; pairs: the best of four rates",
    source="mnist",
    uses=IMAGE_OPTIONS - {"seconds", "cluster"},
    seeds={"smoke": 2, "cpu": 5, "full": 10},
    cells=cells,
    columns=(
        Column("study/nets", "nets", 0, interval=False),
        Column("study/lost", "lost %", 0, interval=False),
        Column("study/late", "late %", 0, interval=False),
        Column("study/over_gaussian", "over Gauss", 1),
    ),
    rows=rows,
    figures=figures,
    conclude=lambda finished: conclude(read(finished)),
)
