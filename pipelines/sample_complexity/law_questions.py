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

RANKS, ALIKE = 0.2, 0.8
"""Correlations of ranks are told apart from this difference on, and from 1 below this."""

COPIES = 0.1
"""A network memorises where more of its samples than this are copies; of true ones 0.01 are."""

PARTING = 8.0
"""The noise at which missing a mode at distance 4 costs most, over what networks err without it.

Chosen from the rows of earlier runs. By the exact denoiser of the law without it, η = 0.005: 0.03
√D of 0.02 √D; at the least noise 0.17 of 0.96. The quantile at δ = 0.1 is below 0.001 √D.
"""

PREDICTORS = {
    "levels_l2": "mean square",
    "levels_t": "truncated mean square",
    "levels_q": "quantile",
    "levels_d": "largest quantile error, δ/N",
}
OUTCOMES = {
    "w2": "sliced W2",
    "tv": "TV of components",
    "excess": "−log q",
    "far_error": "error of the mode's weight",
}

FAMILY = "over the networks of a training set, of every m and length of training"

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
    """Returns a column with shape (sets, networks, ...), of every m and length of training."""
    rows = rows.sort_by([("seed", "ascending"), ("m", "ascending"), ("step", "ascending")])
    found = np.array(rows[column].to_pylist())
    return found.reshape(len(set(rows["seed"].to_pylist())), -1, *found.shape[1:])


def lead(config: ComplexityConfig) -> str:
    """Returns the law that claims are about; others are shown beside it."""
    return config.laws.names[0]


def questions(config: ComplexityConfig, rows: pa.Table) -> list[list[Measured]]:
    """Returns what is asked, with what was found: in groups, of which the first two lead.

    Where does a rare mode part both errors, and where not? Does it part their orders, and what do
    they tell of samples? And of networks that memorise? Asked is of the rarest mode and the
    heaviest.
    """
    etas = sorted(eta for eta in config.laws.etas if eta)
    plain = learnt(rows, lead(config), 0.0)
    apart, told = [], []
    if etas:
        rare = [learnt(rows, lead(config), eta) for eta in (etas[0], etas[-1])]
        apart += _parted(config, plain, rare, (etas[0], etas[-1])) if len(plain) else ()
        told += _ordered(config, rare[-1], etas[-1])
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
        f"At σ = {PARTING:g} a mode of weight η = {etas[1]:g} raises mean square more than the "
        f"quantile, m = {many:,}",
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


def _ordered(config: ComplexityConfig, rows: pa.Table, eta: float) -> Iterator[Measured]:
    """Compares the orders of both errors; alike, neither tells samples better than the other."""
    place = parting(config)
    pairs = {
        "over all levels": [family(rows, name) for name in ("levels_l2", "levels_q")],
        f"at σ = {PARTING:g}": [
            family(rows, name)[..., place] for name in ("by_level_l2", "by_level_d")
        ],
    }
    for levels, errors in pairs.items():
        yield Question(
            f"With a mode of weight η = {eta:g}, mean square and quantile order networks alike, "
            f"{levels}: ranks are correlated by more than {ALIKE:g}",
            f"rank correlation {FAMILY}", above(ALIKE), figure="families",
            note="mean over training sets",
        ), student(ranked(*errors))  # fmt: skip


def _told(rows: pa.Table) -> Iterator[Measured]:
    error = family(rows, "levels_l2")
    for outcome in ("w2", "tv", "excess"):
        yield Question(
            f"Without it, the less the error, the less {OUTCOMES[outcome]}: ranks are "
            f"correlated by more than {RANKS:g}", f"rank correlation {FAMILY}", above(RANKS),
            figure="families",
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
    few, many = (where(rows, m=size) for size in (m[0], m[-1]))
    span = f"of m = {m[0]:,} samples, from {steps[-2]:,} to {steps[-1]:,} steps of training"
    copied = family(few, "copied")
    yield Question(
        f"{m[0]:,} samples are memorised", "share of samples that are copies at the end",
        above(COPIES), figure="memory",
        note="nearer to a training sample than all but 1 % of true samples are",
    ), student(copied[:, -1])  # fmt: skip
    for name in ("levels_l2", "levels_q"):
        yield Question(
            f"Meanwhile the {PREDICTORS[name]} error grows: {span}",
            "its change over all levels, as a logarithm", above(SAME), figure="memory",
            note="paired by network",
        ), student(np.log(_kept(few, name)))  # fmt: skip
    yield Question(
        f"Meanwhile −log q of samples falls more than that of m = {m[-1]:,}: {span}",
        "share that is left of what it is above true samples', less that of the largest m",
        below(-SAME), figure="memory", note="paired by training set",
    ), student(_kept(few, "excess") - _kept(many, "excess"))  # fmt: skip


def _kept(rows: pa.Table, column: str) -> np.ndarray:
    """Returns each network's value at the end over that at the length of training before."""
    found = family(rows, column)
    return found[:, -1] / found[:, -2]
