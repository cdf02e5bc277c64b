"""The experiment ``phases``: a map of the trainings that lose mass by scores alone.

The *map* crosses activation, start, preprocessing, learning rate and objective on digits. The
*pairs* are fewer and longer: scores alone, and exact likelihood of the published network. Each
seed has its own split of the data, order of batches and noise; starts are the same for all seeds.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from pipelines.config import Dsm, Likelihood, Ssm
from pipelines.paper import phases_claims as claims
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig, StackConfig
from pipelines.paper.phases_claims import ACTIVATIONS, MAP, PAIRS, PLAIN, PUBLISHED, where
from pipelines.paper.stack import NETS
from pipelines.reporting.style import panels

SCORES = (
    *(Dsm(sigma=sigma) for sigma in (0.1, 0.3, 1.0)),
    Ssm(),
    Ssm(name="ssm_vr"),
)
DENOISING, LIKELIHOOD = SCORES[1], Likelihood()
"""Objectives of the pairs."""

STEPS = {
    "smoke": {MAP: 30, PAIRS: 30},
    "cpu": {MAP: 600, PAIRS: 1_500},
    "full": {MAP: 6_000, PAIRS: 20_000},
}
"""Training steps, by scale and part."""

LOOKS = {MAP: 4, PAIRS: 10}
"""Equal parts of a training at whose ends the networks are measured."""

GRIDS = {
    MAP: {
        "preprocessings": ("whitened", "plain"),
        "starts": tuple(product((1, -1), (0.0, 1.0))),
        "rates": (claims.SLOW, claims.FAST),
    },
    PAIRS: {"starts": (PLAIN,), "rates": (5e-3, 1e-2, 2e-2, 4e-2)},
}
"""Options of ``StackConfig``, by part."""


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the map and the pairs."""
    ways = [
        *((MAP, *way, {}) for way in product(ACTIVATIONS, SCORES)),
        (PAIRS, "published", LIKELIHOOD, {"starts": (PUBLISHED, PLAIN)}),
        *((PAIRS, activation, DENOISING, {}) for activation in ("centred", "learned")),
    ]
    for part, activation, objective, changes in ways:
        steps = STEPS[config.scale][part]
        equal = {round(steps * k / LOOKS[part]) for k in range(LOOKS[part] + 1)}
        stack = StackConfig(
            part=part, activation=activation, objective=objective, seed=seed, steps=steps,
            looks=tuple(sorted(equal.union(claims.EARLY))), **GRIDS[part] | changes,
        )  # fmt: skip
        labels = {"part": part, "f": activation, "objective": stack.objective_label}
        yield Cell(labels, stack, seed, claims.DIGITS.changed(seed=seed))


def read(finished: Sequence[Finished]) -> pd.DataFrame:
    """Returns all networks with their outcome, indexed by the place of their cell."""
    nets = [pd.read_parquet(one.folders[0] / NETS) for one in finished]
    return claims.judged(pd.concat(nets, keys=range(len(nets)), names=["place", None]))


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per cell and preprocessing, over starts and rates.

    The row of a pair has its better start and rate of all seeds.
    """
    nets = read(finished)
    best = pd.concat([claims.pair(nets, name) for name in ACTIVATIONS]).index
    shown = nets[(nets["part"] != PAIRS) | nets.index.isin(best)]
    groups = shown.groupby(["place", "preprocessing"], sort=False)
    return [
        _row(finished[place].cell, preprocessing, group)
        for (place, preprocessing), group in groups
    ]


def _row(cell: Cell, preprocessing: str, nets: pd.DataFrame) -> Row:
    part, *others = cell.labels.items()
    return {
        **cell.provenance(),
        "labels": dict([part, ("data", preprocessing), *others]),
        "study/nets": len(nets),
        "study/lost": 100 * float(nets["lost"].mean()),
        "study/late": 100 * float(nets["late"].mean()),
        "study/over_gaussian": float((nets["best"] - nets["gaussian"]).min()),
    }


CAPTION = (
    "A square is a net, the mean over seeds: the squared latent mean per element in the end; "
    f"white is {claims.LOST:g}, red has lost mass, black is not finite. A dot: large and still "
    "falling, from a distant start, for half of the seeds."
)

LINE, COLUMN = ["preprocessing", "start"], ["objective", "rate"]
"""The columns of a network that are lines and columns of the map."""

MASSES = np.log10((1e-3, claims.LOST, 30.0))
"""Least, middle and largest value of the colours."""


def figure(nets: pd.DataFrame) -> Figure:
    """Returns the map, a panel for each activation."""
    low, middle, high = MASSES
    mass = np.log10(nets["end"].clip(10**low, 10**high)).where(np.isfinite(nets["end"]))
    shown = where(nets.assign(mass=mass), part=MAP)
    figure, axes = panels(len(ACTIVATIONS), 11, 4.6, sharey=True)
    for activation, axis in zip(ACTIVATIONS, axes, strict=True):
        norm = TwoSlopeNorm(middle, low, high)
        shade = _squares(axis, where(shown, activation=activation), norm)
        axis.set_title(activation)
    label = "squared latent mean an element, log₁₀"
    figure.colorbar(shade, ax=axes, label=label, shrink=0.8, pad=0.01)
    axes[0].invert_yaxis()
    return figure


def _squares(axis: Axes, nets: pd.DataFrame, norm: TwoSlopeNorm) -> mpl.cm.ScalarMappable:
    """Draws networks as squares, the mean over seeds; black if one became non-finite.

    A dot marks cells of which half of the means are still falling.
    """
    groups = nets.groupby(LINE + COLUMN, sort=False)
    mass, late = (
        groups[name].agg(lambda values: values.mean(skipna=False)).unstack(COLUMN, sort=False)
        for name in ("mass", "late")
    )
    cmap = mpl.colormaps["RdYlBu_r"].with_extremes(bad="black")
    shown = axis.pcolormesh(mass.to_numpy(float), cmap=cmap, norm=norm, edgecolors="white", lw=1.5)
    down, across = np.nonzero(late.to_numpy(float) >= 0.5)
    axis.plot(across + 0.5, down + 0.5, ".", color="black", ms=3)
    names = [f"{objective}, {rate:g}" for objective, rate in mass.columns]
    axis.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90)
    axis.set_yticks(np.arange(len(mass)) + 0.5, ["  ".join(line) for line in mass.index])
    axis.grid(visible=False)
    axis.tick_params(length=0, labelsize=7)
    return shown


PHASES = Experiment(
    about="where training by scores alone loses mass, and what keeps it",
    legend="nets of two dense layers, by Adam under a cosine, batches of 100; lost: share of "
    "nets, over starts and rates, whose squared latent mean ends large and has risen; late: "
    "large, still falling; over Gauss: validation NLL of the best net at its best look above the "
    "full-covariance Gaussian's, nats; pairs: the best of four rates",
    uses=frozenset(("seed", "seeds")),
    seeds={"smoke": 2, "cpu": 5, "full": 10},
    cells=cells,
    columns=(
        Column("study/nets", "nets", 0, interval=False),
        Column("study/lost", "lost %", 0, interval=False),
        Column("study/late", "late %", 0, interval=False),
        Column("study/over_gaussian", "over Gauss", 1),
    ),
    rows=rows,
    figures=lambda rows, finished: {MAP: (figure(read(finished)), CAPTION)},
    conclude=lambda finished: claims.conclude(read(finished)),
)
