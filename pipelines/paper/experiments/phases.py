"""A map of the trainings that lose mass by scores alone.

The *map* crosses activation, start, learning rate and objective on whitened digits. The *pairs*
are fewer and longer: scores alone, and exact likelihood of the published network. Each seed has
its own split of the data, order of batches and noise; starts are the same for all seeds.

The order parameter is the squared norm of the latents' mean, which is zero at the truth. Half of
it, in nats, is the gain of moving the last offset alone. The bounds of all claims were fixed
before the runs.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from pandas.api.typing import DataFrameGroupBy

from pipelines import metrics_log
from pipelines.config import (
    AnchorConfig,
    DataConfig,
    Dense,
    DensityConfig,
    Dsm,
    Likelihood,
    PreprocessConfig,
    Ssm,
    TrainConfig,
)
from pipelines.config.objective import AnyObjective
from pipelines.config.source import overlap
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig
from pipelines.reporting.claims import Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Confidence, above, student, within
from pipelines.reporting.style import Captioned, panels

MAP, PAIRS = "map", "pairs"  # Parts of the experiment

DIGITS, WIDTH = DataConfig(source="digits"), 64

# Options of the network.
ACTIVATIONS: dict[str, dict[str, Any]] = {
    "published": {"activation": "smooth_leaky_relu"},
    "centred": {"activation": "smooth_leaky_relu", "centred": True},
    "learned": {"activation": "spline"},
}

STARTS = {"+1, 0": {"sign": 1, "bias": 0.0}, "-1, 1": {"sign": -1, "bias": 1.0}}
PLAIN, PUBLISHED = STARTS  # Starts by the sign of the identity and the offset of every layer
SLOW, FAST = 1e-3, 4e-3  # Learning rates of the map

RATES = {MAP: (SLOW, FAST), PAIRS: (5e-3, 1e-2, 2e-2, 4e-2)}

SCORES = (*(Dsm(sigma=sigma) for sigma in (0.1, 0.3, 1.0)), Ssm(), Ssm(name="ssm_vr"))
DENOISING, LIKELIHOOD = SCORES[1], Likelihood()  # Objectives of the pairs

# Training steps, by scale and part.
STEPS = {
    "smoke": {MAP: 30, PAIRS: 30},
    "cpu": {MAP: 600, PAIRS: 1_500},
    "full": {MAP: 6_000, PAIRS: 20_000},
}

# Squared latent mean per element above which mass is missing: an eighth of a nat per element.
LOST = 0.25

# Ratio of the last mean to the smallest one. A large mean below this ratio is still falling, from
# a distant start: mass is not lost but not yet found.
RISEN = 1.1

MARGIN = 1.0  # Nats on digits that matter: a hundredth of the Gaussian's NLL
SPARED = 0.1  # Difference of shares of lost trainings that matters

BELOW = f"ends more than {MARGIN:g} nat below"
EXACT = "exact likelihood of the published network"

# Claims on the pairs: activation, that of the opponent (None: the Gaussian), claim and region.
LEADS = (
    ("centred", None, f"{BELOW} the Gaussian", above(MARGIN)),
    ("learned", None, f"{BELOW} the Gaussian", above(MARGIN)),
    ("centred", "published", f"is as good as {EXACT}", within(MARGIN)),
    ("learned", "published", f"{BELOW} {EXACT}", above(MARGIN)),
)

# Claims on the map: text, the networks, the column in which they differ, and two of its values:
# the one that should lose mass less often, and the other.
SHARES = (
    ("By denoising, the centred activation loses mass less often than the published one",
     {"kind": "dsm"}, "activation", "centred", "published"),
    ("By denoising, the learned activation loses mass less often than the published one",
     {"kind": "dsm"}, "activation", "learned", "published"),
    ("With the learned activation, denoising loses mass less often than sliced score matching",
     {"activation": "learned"}, "kind", "dsm", "ssm"),
    ("With the published activation, the published start loses mass less often than the identity",
     {"activation": "published"}, "start", PUBLISHED, PLAIN),
    ("With the published activation, a smaller learning rate loses mass less often",
     {"activation": "published"}, "rate", f"{SLOW:g}", f"{FAST:g}"),
)  # fmt: skip

OVER_SEEDS = (
    "Paired by seed, pairs at their best learning rate and validation. The interval "
    "is over seeds, and allows for the overlap of their splits of the same images."
)

CAPTION = (
    "A square is a network, the mean over seeds: the squared latent mean per element in the end; "
    f"white is {LOST:g}, red is above it, black diverged."
)

MASSES = np.log10((1e-3, LOST, 30.0))  # Least, middle and largest value of the colours


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the map and the pairs."""
    ways = [
        *product((MAP,), ACTIVATIONS, SCORES, STARTS),
        *product((PAIRS,), ("published",), (LIKELIHOOD,), STARTS),
        *product((PAIRS,), ("centred", "learned"), (DENOISING,), (PLAIN,)),
    ]
    for part, activation, objective, start in ways:
        for rate in RATES[part]:
            labels = {
                "part": part, "activation": activation, "objective": _name(objective),
                "start": start, "rate": f"{rate:g}",
            }  # fmt: skip
            steps = STEPS[config.scale][part]
            flow = _flow(seed, activation, objective, start, rate, steps)
            yield Cell.of_flow(labels, flow.changed(cluster=config.cluster))


def _name(objective: AnyObjective) -> str:
    """Returns the name of an objective with its noise."""
    return f"dsm {objective.sigma:g}" if isinstance(objective, Dsm) else objective.name


def _flow(
    seed: int, activation: str, objective: AnyObjective, start: str, rate: float, steps: int
) -> DensityConfig:
    options = {**ACTIVATIONS[activation], **STARTS[start]}
    return DensityConfig(
        seed=seed,
        data=DIGITS.changed(seed=seed),
        preprocess=PreprocessConfig(shrinkage=1e-3),
        model=Dense(depth=2, noise=0.0, calibrated=False, **options),
        objective=objective,
        anchor=AnchorConfig(weight=0.0),
        train=TrainConfig(
            steps=steps, lr=rate, batch_size=100, warmup=0.0, ema_decay=0.99,
            validate_every=max(1, steps // 6),
        ),
    )  # fmt: skip


def read(finished: Sequence[Finished]) -> pd.DataFrame:
    """Returns all networks with their outcome, one row for each.

    ``end`` is the last squared latent mean per element. ``lost`` networks miss mass at the end,
    and more than at their best validation. ``best`` is the least validation NLL less that of the
    Gaussian, and ``gain`` is how far the test NLL is below the Gaussian's.
    """
    return pd.DataFrame([_network(one) for one in finished])


def _network(one: Finished) -> dict[str, Any]:
    row, logged = one.row, metrics_log.read(one.folders["trained"] / metrics_log.FILE)
    validations = [each["metrics"] for each in metrics_log.curve(logged, "validate")]
    masses = [metrics["latent/mean_norm2"] / WIDTH for metrics in validations]
    return {
        **one.cell.labels,
        "seed": one.cell.seed,
        "kind": one.cell.labels["objective"][:3],
        "end": masses[-1],
        "lost": masses[-1] > max(LOST, RISEN * min(masses)),
        "best": row["best/val_nll"] - row["baseline/gaussian_val_nll"],
        "gain": row["baseline/gaussian_nll"] - row["test/nll"],
    }


def mapped(networks: pd.DataFrame) -> pd.DataFrame:
    """Returns the networks of the map; those that diverged have lost mass."""
    keys = ["activation", "objective", "start", "rate", "seed"]
    found = networks[networks["part"] == MAP].set_index(keys)
    grid = pd.MultiIndex.from_product([found.index.unique(key) for key in keys])
    found = found.reindex(grid).reset_index()
    return found.assign(lost=found["lost"].ne(False), kind=found["objective"].str[:3])


def pair(networks: pd.DataFrame, activation: str) -> pd.DataFrame:
    """Returns the networks of a pair by seed, at the start and rate with the best mean NLL.

    Starts and rates of which a seed diverged do not count.
    """
    own = networks[(networks["part"] == PAIRS) & (networks["activation"] == activation)]
    nlls = own.pivot(index=["start", "rate"], columns="seed", values="best")
    best = nlls.mean(axis=1, skipna=False).idxmin()
    return own.set_index(["start", "rate"]).loc[[best]].sort_values("seed")


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per activation, objective and seed, over starts and rates."""
    networks, groups = read(finished), ["part", "activation", "objective", "seed"]
    found = networks.groupby(groups, sort=False).agg(
        networks=("lost", "size"), lost=("lost", "mean"), best=("best", "min")
    )
    return [
        {
            "labels": dict(zip(groups[:-1], key, strict=False)),
            "seed": key[-1], "data": DIGITS.source, "published": None,
            "study/networks": int(line["networks"]),
            "study/lost": 100 * line["lost"],
            "study/over_gaussian": line["best"],
        }
        for key, line in found.iterrows()
    ]  # fmt: skip


def conclude(finished: Sequence[Finished]) -> Conclusion:
    """Returns the claims on pairs and map, which short trainings do not decide."""
    networks = read(finished)
    measured = [*_leads(networks), *_shares(mapped(networks))]
    if not cell.decisive(finished):
        measured = [(question, None) for question, _ in measured]
    return Conclusion(claims=tuple(decide(measured)))


def _leads(networks: pd.DataFrame) -> Iterator[Measured]:
    for activation, opponent, claim, region in LEADS:
        text = f"With the {activation} activation, DSM alone {claim}"
        question = Question(text, "its lead in test NLL", region, None, OVER_SEEDS, "nats")
        yield question, lead(networks, activation, opponent)


def lead(networks: pd.DataFrame, activation: str, opponent: str | None = None) -> Confidence:
    """Returns the lead of a pair in test NLL over the Gaussian, or another one, paired by seed.

    Each seed has its own test rows, so that the variance over seeds includes that over rows.
    """
    gain = pair(networks, activation)["gain"].to_numpy()
    if opponent:
        gain = gain - pair(networks, opponent)["gain"].to_numpy()
    return student(gain, overlap=overlap(DIGITS))


def _shares(networks: pd.DataFrame) -> Iterator[Measured]:
    """Yields differences of shares of lost networks, which are means over the map's cells."""
    for claim, shared, column, less, more in SHARES:
        ((name, value),) = shared.items()
        shares = networks[networks[name] == value].groupby([column, "seed"])["lost"].mean()
        quantity = f"share of trainings that lost mass, {column} {more} less {less}"
        text = f"{claim}, by more than {SPARED:g}"
        question = Question(text, quantity, above(SPARED), figure=MAP, note=OVER_SEEDS)
        yield question, student(shares[more] - shares[less], overlap=overlap(DIGITS))


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    """Returns the map."""
    return {MAP: (figure(read(finished)), CAPTION)}


def figure(networks: pd.DataFrame) -> Figure:
    """Returns the map, a panel for each activation and a square for each network."""
    shown, (low, middle, high) = mapped(networks), MASSES
    shown["mass"] = np.log10(shown["end"]).clip(low, high)
    norm = TwoSlopeNorm(middle, low, high)
    figure, axes = panels(1, 5.5, 6, down=len(ACTIVATIONS), sharex=True)
    for activation, axis in zip(ACTIVATIONS, axes, strict=True):
        part = shown[shown["activation"] == activation]
        shade = _squares(axis, part.groupby(["start", "objective", "rate"], sort=False), norm)
        axis.set_title(activation)
        axis.invert_yaxis()
    label = "squared latent mean an element, log₁₀"
    figure.colorbar(shade, ax=axes, label=label, location="bottom", shrink=0.8, pad=0.01)
    return figure


def _squares(axis: Axes, networks: DataFrameGroupBy, norm: TwoSlopeNorm) -> mpl.cm.ScalarMappable:
    """Draws networks as squares, the mean over seeds; black if one diverged."""
    mass = networks["mass"].mean(skipna=False).unstack(["objective", "rate"], sort=False)
    cmap = mpl.colormaps["RdYlBu_r"].with_extremes(bad="black")
    shown = axis.pcolormesh(mass.to_numpy(float), cmap=cmap, norm=norm, edgecolors="white", lw=1.5)
    names = [", ".join(column) for column in mass.columns]
    axis.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90)
    axis.set_yticks(np.arange(len(mass)) + 0.5, [*mass.index])
    axis.grid(visible=False)
    axis.tick_params(length=0, labelsize=7)
    return shown


PHASES = Experiment(
    about="where training by scores alone loses mass, and what preserves it",
    legend="networks of two dense layers, by Adam under a cosine, batches of 100; lost: share of "
    "networks, over starts and rates, whose squared latent mean ends large and has risen; "
    "over Gauss: validation NLL of the best network at its best validation above the "
    "full-covariance Gaussian's, nats",
    uses=frozenset(("seed", "seeds", "cluster")),
    cells=cells,
    columns=(
        Column("study/networks", "networks", 0, interval=False),
        Column("study/lost", "lost %", 0, interval=False),
        Column("study/over_gaussian", "over Gauss", 1),
    ),
    rows=rows,
    figures=figures,
    conclude=conclude,
)
