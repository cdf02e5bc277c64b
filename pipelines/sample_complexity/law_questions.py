"""What is asked of denoisers of laws that look like data.

A training set, nested in m, with all networks that learnt from it is one unit. Those of every m
after every length of training are its *family*: they differ far more than networks of equal m do,
and so ranks within a family tell errors apart.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from ebflow.inference import Confidence, above, below, bootstrap, student
from pipelines.reporting.claims import Question
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.results import matrix, where

SAME = 0.15
"""Errors are told apart where their ratio changes by more than this, as a logarithm."""

RANKS = 0.2
"""Correlations of ranks are told apart from this difference on."""

HALVED = 0.5
"""What samples are off by is told apart where less than this share of it is left."""

COPIES = 0.1
"""A network memorises where more of its samples than this are copies; of true ones 0.01 are."""

PARTING = 8.0
"""The noise at which missing a mode at distance 4 costs most, over what networks err without it.

By the exact denoiser of the law without it, η = 0.005: 0.03 √D of 0.02 √D; at the least noise 0.17
of 0.96. The quantile at δ = 0.1 is below 0.001 √D.
"""

PREDICTORS = {
    "levels_l2": "mean square",
    "levels_q": "quantile",
    "levels_d": "largest quantile error, δ/N",
}
OUTCOMES = {
    "w2": "sliced W2",
    "tv": "TV of components",
    "excess": "−log q",
    "far_error": "error of the mode's weight",
}

FOLLOWED = {
    "w2": ("levels_l2", "levels_q"),
    "far_error": ("levels_l2", "levels_q"),
    "tv": ("levels_q", "levels_l2"),
}
"""By outcome: the error that it is said to follow, and the one that it is not."""

FAMILY = "rank correlations over the networks of a training set, of every m and length of training"

FIGURE = "data-like"

Measured = tuple[Question, Confidence | None]


def learnt(rows: pa.Table, law: str, eta: float, net: str = "residual") -> pa.Table:
    """Returns the rows of networks that learnt a law."""
    from pipelines.sample_complexity.denoisers import LEARNERS  # imports torch

    return where(rows, panel="truths", learner=LEARNERS[net], law=law, eta=eta)


def trained(rows: pa.Table) -> pa.Table:
    """Returns the rows at the end of training."""
    return where(rows, step=pc.max(rows["step"]).as_py())


def family(rows: pa.Table, column: str) -> np.ndarray:
    """Returns a column with shape (sets, networks), of every m and length of training."""
    rows = rows.sort_by([("seed", "ascending"), ("m", "ascending"), ("step", "ascending")])
    return rows[column].to_numpy().reshape(len(set(rows["seed"].to_pylist())), -1)


def lead(config: ComplexityConfig) -> str:
    """Returns the law that claims are about; others are shown beside it."""
    return config.laws.names[0]


def questions(config: ComplexityConfig, rows: pa.Table) -> list[list[Measured]]:
    """Returns what is asked, with what was found: in groups, of which the first two lead.

    Where does a rare mode part both errors, and where not? Which of them do samples follow? And
    what do they tell of networks that memorise? Asked is of the rarest mode and the heaviest.
    """
    etas = sorted(eta for eta in config.laws.etas if eta)
    plain = learnt(rows, lead(config), 0.0)
    apart, told = [], []
    if etas:
        rare = [learnt(rows, lead(config), eta) for eta in (etas[0], etas[-1])]
        apart += _parted(config, plain, rare, (etas[0], etas[-1])) if len(plain) else ()
        told += _followed(rare[-1], etas[-1])
    if not len(plain):
        return [told]
    apart += _alike(config, trained(plain))
    return [apart, [*told, *_told(plain)], list(_memorised(plain))]


def _parted(
    config: ComplexityConfig, plain: pa.Table, rare: list[pa.Table], etas: tuple[float, float]
) -> Iterator[Measured]:
    few, many = min(config.laws.sizes), max(config.laws.sizes)
    place = parting(config)
    note = "against networks of the law without it, paired by training set"
    yield Question(
        f"At σ = {PARTING:g}, where theory has the largest effect, a mode of weight "
        f"η = {etas[1]:g} raises mean square more than the quantile, m = {many:,}",
        "rise of mean square over that of the quantile error, as a logarithm",
        above(SAME), figure="dose", note=note,
    ), student(rise(plain, rare[1], many)[:, place])  # fmt: skip
    yield Question(
        f"Over all levels it does so too, m = {few:,}",
        "the same of roots of means of squares over levels", above(SAME), figure="dose", note=note,
    ), student(rise(plain, rare[1], few, levels=False))  # fmt: skip
    yield Question(
        f"A mode of weight η = {etas[0]:g} does not, even at σ = {PARTING:g}, m = {few:,}",
        "rise of mean square over that of the quantile error, as a logarithm",
        below(SAME), figure="dose", note=note,
    ), student(rise(plain, rare[0], few)[:, place])  # fmt: skip


def parting(config: ComplexityConfig) -> int:
    """Returns the place of the level that is nearest to ``PARTING``."""
    from ebflow.complexity.samplers import ladder  # imports torch
    from pipelines.sample_complexity.denoisers import LEAST, WIDEST  # imports torch

    levels = np.log(ladder(WIDEST, LEAST, config.laws.levels))
    return int(np.abs(levels - np.log(PARTING)).argmin())


def rise(plain: pa.Table, rare: pa.Table, m: int, *, levels: bool = True) -> np.ndarray:
    """Returns by how much a mode raises mean square over the quantile, as a logarithm.

    Of trained networks, set by set: with shape (sets, levels), or (sets,) over all levels.
    """
    names = ("by_level_l2", "by_level_d") if levels else ("levels_l2", "levels_q")
    ratios = []
    for rows in (rare, plain):
        mean, tail = (at_size(rows, name, m) for name in names)
        ratios.append(np.log(mean) - np.log(tail))
    return ratios[0] - ratios[1]


def at_size(rows: pa.Table, column: str, m: int) -> np.ndarray:
    """Returns what trained networks have at an m, with shape (sets, ...)."""
    return np.array(where(trained(rows), m=m).sort_by("seed")[column].to_pylist())


def _alike(config: ComplexityConfig, rows: pa.Table) -> Iterator[Measured]:
    pairs = {
        "at the least noise": ("sigma_l2", f"sigma_d_{config.laws.delta:g}"),
        "over all levels, δ/N": ("levels_l2", "levels_d"),
    }
    for place, (mean, tail) in pairs.items():
        yield Question(
            f"Without an implanted mode the ratio of both errors is the same at every m, {place}",
            "its largest change from that of the largest m, as a logarithm", below(SAME),
            figure=FIGURE, note="a maximum over m, whose interval the bootstrap moves up",
        ), changed(rows, mean, tail)  # fmt: skip


def changed(rows: pa.Table, mean: str, tail: str) -> Confidence | None:
    """Returns the largest change over m of the logarithm of two errors' ratio."""
    ratio = np.log(matrix(rows, tail)[0]) - np.log(matrix(rows, mean)[0])

    def largest(ratio: np.ndarray) -> float:
        return float(np.abs((ratio - ratio[:, -1:]).mean(0)).max())

    return bootstrap(largest, ratio, resamples=400) if len(ratio) > 3 else None


def _followed(rows: pa.Table, eta: float) -> Iterator[Measured]:
    for outcome, (better, worse) in FOLLOWED.items():
        found, *errors = (family(rows, name) for name in (outcome, better, worse))
        gap = ranked(found, errors[0]) - ranked(found, errors[1])
        yield Question(
            f"With a mode of weight η = {eta:g}, {OUTCOMES[outcome]} follows the "
            f"{PREDICTORS[better]} more than the {PREDICTORS[worse]}, by more than {RANKS:g}",
            f"difference of {FAMILY}", above(RANKS), figure="families",
            note="mean over training sets; both errors as roots of means of squares over levels",
        ), student(gap)  # fmt: skip


def _told(rows: pa.Table) -> Iterator[Measured]:
    error = family(rows, "levels_l2")
    for outcome in ("w2", "tv", "excess"):
        yield Question(
            f"Without it, the less the error, the less {OUTCOMES[outcome]}: ranks are "
            f"correlated by more than {RANKS:g}", FAMILY, above(RANKS), figure="families",
            note="mean over training sets; mean square over all levels",
        ), student(ranked(family(rows, outcome), error))  # fmt: skip


def ranked(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation of each row, 0 where one of both is constant."""
    x, y = (stats.rankdata(part, axis=1) for part in (x, y))
    x, y = (ranks - ranks.mean(1, keepdims=True) for ranks in (x, y))
    size = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return (x * y).sum(1) / np.where(size > 0, size, 1)


def _memorised(rows: pa.Table) -> Iterator[Measured]:
    m, steps = (sorted(set(rows[name].to_pylist())) for name in ("m", "step"))
    few = where(rows, m=m[0])
    span = f"of m = {m[0]:,} samples, from {steps[0]:,} to {steps[-1]:,} steps of training"
    copied = family(few, "copied")
    yield Question(
        f"{m[0]:,} samples are memorised", "share of samples that are copies at the end",
        above(COPIES), figure="memory",
        note="nearer to a training sample than all but 1 % of true samples are",
    ), student(copied[:, -1])  # fmt: skip
    excess = family(few, "excess")
    yield Question(
        f"Meanwhile samples' excess of −log q falls by more than half: {span}",
        "what it is above true samples' at the end, over that at the start", below(HALVED),
        figure="memory", note="paired by network",
    ), student(excess[:, -1] / excess[:, 0])  # fmt: skip
    for name in ("levels_l2", "levels_q"):
        error = np.log(family(few, name))
        yield Question(
            f"Meanwhile the {PREDICTORS[name]} error grows: {span}",
            "its change over all levels, as a logarithm", above(SAME), figure="memory",
            note="paired by network",
        ), student(error[:, -1] - error[:, 0])  # fmt: skip
