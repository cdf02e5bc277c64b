"""The experiment ``phases``: a map of the trainings that lose mass by scores alone.

The *map* crosses activation, start, preprocessing, learning rate and objective on digits. The
*pairs* are fewer and longer: scores alone, and exact likelihood of the published network. Each
seed has its own split of the data, order of batches and noise; starts are the same for all seeds.

The order parameter is the squared norm of the latents' mean, which is zero at the truth: half of
it, in nats, is the gain of moving the last offset alone. The bounds of all claims were fixed
before the runs.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from pipelines.config import DataConfig, Dsm, Likelihood, Ssm
from pipelines.config.source import overlap
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig, StackConfig
from pipelines.paper.stack import NETS, start_name
from pipelines.reporting.claims import Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Confidence, above, student, within
from pipelines.reporting.style import panels

MAP, PAIRS = "map", "pairs"
"""Parts of the experiment."""

DIGITS = DataConfig(source="digits")

ACTIVATIONS = ("published", "centred", "learned")
PUBLISHED, PLAIN = (-1, 1.0), (1, 0.0)
"""The published start, and the identity: sign and offset."""

SLOW, FAST = 1e-3, 4e-3
"""Learning rates of the map."""

SCORES = (*(Dsm(sigma=sigma) for sigma in (0.1, 0.3, 1.0)), Ssm(), Ssm(name="ssm_vr"))
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

EARLY = 25
"""A further step at which they are: networks that lose mass later may be at their best then."""

GRIDS = {
    MAP: {
        "preprocessings": ("whitened", "plain"),
        "starts": tuple(product((1, -1), (0.0, 1.0))),
        "rates": (SLOW, FAST),
    },
    PAIRS: {"starts": (PLAIN,), "rates": (5e-3, 1e-2, 2e-2, 4e-2)},
}
"""Options of ``StackConfig``, by part."""

LOST = 0.25
"""Squared latent mean per element above which mass is missing: an eighth of a nat per element."""

RISEN = 1.1
"""Ratio of the last mean to the smallest one. A large mean below this ratio is still falling, from
a distant start: mass is not lost but not yet found."""

MARGIN = 1.0
"""Nats on digits that matter: a hundredth of the Gaussian's NLL."""

SPARED = 0.1
"""Difference of shares of lost trainings that matters."""

BELOW = f"ends more than {MARGIN:g} nat below"
EXACT = "exact likelihood of the published net"
LEADS = (
    ("centred", None, f"{BELOW} the Gaussian", above(MARGIN)),
    ("learned", None, f"{BELOW} the Gaussian", above(MARGIN)),
    ("centred", "published", f"is as good as {EXACT}", within(MARGIN)),
    ("learned", "published", f"{BELOW} {EXACT}", above(MARGIN)),
)
"""Claims on the pairs: activation, that of the opponent (None: the Gaussian), claim and region."""

SHARES = (
    ("By denoising, the centred activation loses mass less often than the published one",
     {"kind": "dsm"}, "activation", "centred", "published"),
    ("By denoising, the learned activation loses mass less often than the published one",
     {"kind": "dsm"}, "activation", "learned", "published"),
    ("With the learned activation, denoising loses mass less often than sliced score matching",
     {"activation": "learned"}, "kind", "dsm", "ssm"),
    ("With the published activation, scores alone lose mass less often from the published start "
     "than from the identity without offset",
     {"activation": "published"}, "start", start_name(*PUBLISHED), start_name(*PLAIN)),
    (f"With the published activation, scores alone lose mass less often at the rate {SLOW:g} than "
     f"at {FAST:g}",
     {"activation": "published"}, "rate", SLOW, FAST),
)  # fmt: skip
"""Claims on the map: text, the networks, the column in which they differ, and two of its values:
the one that should lose mass less often, and the other."""

OVER_SEEDS = (
    "Paired by seed, pairs at their best learning rate and look by validation rows. The interval "
    "is over seeds, and allows for the overlap of their splits of the same images."
)

CAPTION = (
    "A square is a net, the mean over seeds: the squared latent mean per element in the end; "
    f"white is {LOST:g}, red is above it, black is not finite."
)

MASSES = np.log10((1e-3, LOST, 30.0))
"""Least, middle and largest value of the colours."""


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the map and the pairs."""
    ways = [
        *((MAP, *way, {}) for way in product(ACTIVATIONS, SCORES)),
        (PAIRS, "published", LIKELIHOOD, {"starts": (PUBLISHED, PLAIN)}),
        *((PAIRS, activation, DENOISING, {}) for activation in ("centred", "learned")),
    ]
    for part, activation, objective, changes in ways:
        steps = STEPS[config.scale][part]
        looks = {EARLY, *(round(steps * k / LOOKS[part]) for k in range(LOOKS[part] + 1))}
        stack = StackConfig(
            part=part, activation=activation, objective=objective, seed=seed, steps=steps,
            looks=tuple(sorted(looks)), **GRIDS[part] | changes,
        )  # fmt: skip
        labels = {"part": part, "f": activation, "objective": stack.objective_label}
        yield Cell(labels, stack, seed, DIGITS.changed(seed=seed), stage="stack")


def read(finished: Sequence[Finished]) -> pd.DataFrame:
    """Returns all networks with their outcome, indexed by the place of their cell."""
    nets = [pd.read_parquet(one.folders[0] / NETS) for one in finished]
    return judged(pd.concat(nets, keys=range(len(nets)), names=["place", None]))


def judged(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns networks, as ``stack.train`` measures them, with their outcome.

    ``kind`` is ``dsm``, ``ssm`` or ``ml``. ``end`` is the last squared latent mean per element,
    ``best`` the smallest NLL of a look. ``lost`` networks miss mass at the end, and more than at
    their best look.
    """
    end = nets["mass"].map(lambda mass: mass[-1])
    risen = end > RISEN * nets["mass"].map(min)
    ends = {"end": end, "lost": (end > LOST) & risen}
    return nets.assign(**ends, best=nets["nll"].map(min), kind=nets["objective"].str[:3])


def pair(nets: pd.DataFrame, activation: str) -> pd.DataFrame:
    """Returns the networks of a pair by seed, at the start and rate with the best mean NLL."""
    own = nets[(nets["part"] == PAIRS) & (nets["activation"] == activation)]
    ways = own.groupby(["start", "rate"], sort=False)
    best = ways["best"].mean().idxmin()
    return ways.get_group(best).sort_values("seed", kind="stable")


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per cell and preprocessing, over starts and rates.

    The row of a pair has its better start and rate of all seeds.
    """
    nets = read(finished)
    best = pd.concat([pair(nets, name) for name in ACTIVATIONS]).index
    shown = nets[(nets["part"] != PAIRS) | nets.index.isin(best)]
    return [
        _row(finished[place].cell, preprocessing, group)
        for (place, preprocessing), group in shown.groupby(["place", "preprocessing"], sort=False)
    ]


def _row(cell: Cell, preprocessing: str, nets: pd.DataFrame) -> Row:
    part, *others = cell.labels.items()
    return {
        **cell.provenance(),
        "labels": dict([part, ("data", preprocessing), *others]),
        "study/nets": len(nets),
        "study/lost": 100 * float(nets["lost"].mean()),
        "study/over_gaussian": float((nets["best"] - nets["gaussian"]).min()),
    }


def conclude(nets: pd.DataFrame) -> Conclusion:
    """Returns the claims on pairs and map."""
    measured = [*_leads(nets), *_shares(nets[nets["part"] == MAP])]
    return Conclusion(claims=tuple(decide(measured)))


def _leads(nets: pd.DataFrame) -> Iterator[Measured]:
    for activation, opponent, claim, region in LEADS:
        text = f"With the {activation} activation, DSM alone {claim}"
        question = Question(text, "its lead in test NLL", region, "nats", note=OVER_SEEDS)
        yield question, lead(nets, activation, opponent)


def lead(nets: pd.DataFrame, activation: str, opponent: str | None = None) -> Confidence:
    """Returns the lead of a pair in test NLL over the Gaussian, or another one, paired by seed.

    Each seed has its own test rows, so that the variance over seeds includes that over rows.
    """
    gain = pair(nets, activation)["gain"].to_numpy()
    if opponent:
        gain = gain - pair(nets, opponent)["gain"].to_numpy()
    return student(gain, overlap=overlap(DIGITS))


def _shares(nets: pd.DataFrame) -> Iterator[Measured]:
    """Yields differences of shares of lost networks, which are means over the map's cells."""
    for claim, shared, column, less, more in SHARES:
        ((name, value),) = shared.items()
        shares = nets[nets[name] == value].groupby([column, "seed"])["lost"].mean()
        quantity = f"share of trainings that lost mass, {column} {more} less {less}"
        text = f"{claim}, by more than {SPARED:g}"
        question = Question(text, quantity, above(SPARED), figure=MAP, note=OVER_SEEDS)
        yield question, student(shares[more] - shares[less], overlap=overlap(DIGITS))


def figure(nets: pd.DataFrame) -> Figure:
    """Returns the map, a panel for each activation."""
    low, middle, high = MASSES
    mass = np.log10(nets["end"].clip(10**low, 10**high)).where(np.isfinite(nets["end"]))
    shown = nets.assign(mass=mass)[nets["part"] == MAP]
    figure, axes = panels(len(ACTIVATIONS), 11, 4.6, sharey=True)
    norm = TwoSlopeNorm(middle, low, high)
    for activation, axis in zip(ACTIVATIONS, axes, strict=True):
        shade = _squares(axis, shown[shown["activation"] == activation], norm)
        axis.set_title(activation)
    label = "squared latent mean an element, log₁₀"
    figure.colorbar(shade, ax=axes, label=label, shrink=0.8, pad=0.01)
    axes[0].invert_yaxis()
    return figure


def _squares(axis: Axes, nets: pd.DataFrame, norm: TwoSlopeNorm) -> mpl.cm.ScalarMappable:
    """Draws networks as squares, the mean over seeds; black if one became non-finite."""
    across = ["objective", "rate"]
    squares = nets.groupby(["preprocessing", "start", *across], sort=False)["mass"]
    mass = squares.agg(lambda values: values.mean(skipna=False)).unstack(across, sort=False)
    cmap = mpl.colormaps["RdYlBu_r"].with_extremes(bad="black")
    shown = axis.pcolormesh(mass.to_numpy(float), cmap=cmap, norm=norm, edgecolors="white", lw=1.5)
    names = [f"{objective}, {rate:g}" for objective, rate in mass.columns]
    axis.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90)
    axis.set_yticks(np.arange(len(mass)) + 0.5, ["  ".join(line) for line in mass.index])
    axis.grid(visible=False)
    axis.tick_params(length=0, labelsize=7)
    return shown


PHASES = Experiment(
    about="where training by scores alone loses mass, and what keeps it",
    legend="nets of two dense layers, by Adam under a cosine, batches of 100; lost: share of "
    "nets, over starts and rates, whose squared latent mean ends large and has risen; "
    "over Gauss: validation NLL of the best net at its best look above the "
    "full-covariance Gaussian's, nats; pairs: the best of four rates",
    uses=frozenset(("seed", "seeds")),
    seeds={"smoke": 2, "cpu": 5, "full": 10},
    cells=cells,
    columns=(
        Column("study/nets", "nets", 0, interval=False),
        Column("study/lost", "lost %", 0, interval=False),
        Column("study/over_gaussian", "over Gauss", 1),
    ),
    rows=rows,
    figures=lambda rows, finished: {MAP: (figure(read(finished)), CAPTION)},
    conclude=lambda finished: conclude(read(finished)),
)
