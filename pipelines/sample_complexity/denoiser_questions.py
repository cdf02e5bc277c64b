"""What is asked of denoisers of laws that look like data.

A training set, nested in m, with all networks that learnt from it is one unit. Those of every m
after every length of training are its *family*: they differ far more than networks of equal m do,
and so ranks within a family tell errors apart.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ebflow.complexity.samplers import ladder
from pipelines.reporting.claims import Measured, Question
from pipelines.reporting.statistics import (
    Confidence,
    above,
    below,
    bootstrap,
    rank_correlation,
    student,
)
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.denoisers import DELTA, LEARNERS, LEAST, WIDEST
from pipelines.sample_complexity.rows import family, matrix, trained, where

SAME = 0.15
"""Errors are told apart where their ratio changes by more than this, as a logarithm."""

RANKS, ALIKE, SHOWS = 0.2, 0.8, 0.95
"""Correlations of ranks are told apart from this difference on, and from 1 below this; orders that
are alike would show at the last."""

COPIES = 0.1
"""A network memorizes where more of its samples than this are copies; of true ones 0.01 are."""

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


def learnt(rows: pd.DataFrame, law: str, eta: float, net: str = "residual") -> pd.DataFrame:
    """Returns the rows of networks that learnt a law."""
    return where(rows, panel="truths", learner=LEARNERS[net], law=law, eta=eta)


def lead(config: ComplexityConfig) -> str:
    """Returns the law that claims are about; others are shown beside it."""
    return config.laws.names[0]


def questions(config: ComplexityConfig, rows: pd.DataFrame) -> list[list[Measured]]:
    """Returns what is asked, with what was found: in groups, of which the first two lead.

    Where does a rare mode part both errors, and where not? Does it part their orders, and what do
    they tell of samples? And of networks that memorize? Asked is of the rarest mode and the
    heaviest.
    """
    etas = sorted(eta for eta in config.laws.etas if eta)
    plain, *rare = (learnt(rows, lead(config), eta) for eta in (0.0, *etas))
    told = list(_ordered(config, rare[-1], etas[-1])) if etas else []
    if not len(plain):
        return [told]
    apart = list(_parted(config, plain, rare, etas)) if etas else []
    apart += _alike(trained(plain))
    return [apart, [*told, *_told(plain)], list(_memorized(plain))]


def _parted(
    config: ComplexityConfig, plain: pd.DataFrame, rare: list[pd.DataFrame], etas: list[float]
) -> Iterator[Measured]:
    few, many, place = min(config.laws.sizes), max(config.laws.sizes), parting(config)
    quantity = "rise of mean square over that of the quantile error, as a logarithm"
    shown = {
        "figure": "dose",
        "note": "against networks of the law without it, paired by training set",
    }
    yield Question(
        f"At σ = {PARTING:g} a mode of weight η = {etas[-1]:g} raises mean square more than the "
        f"quantile, m = {many:,}", quantity, above(SAME), **shown,
    ), student(rise(plain, rare[-1], many)[:, place])  # fmt: skip
    yield Question(
        f"Over all levels it does so too, m = {few:,}",
        "the same of roots of means of squares over levels", above(SAME), **shown,
    ), student(rise(plain, rare[-1], few, levels=False))  # fmt: skip
    yield Question(
        f"A mode of weight η = {etas[0]:g} does not, even at σ = {PARTING:g}, m = {few:,}",
        quantity, below(SAME), **shown,
    ), student(rise(plain, rare[0], few)[:, place])  # fmt: skip


def parting(config: ComplexityConfig) -> int:
    """Returns the place of the level that is nearest to ``PARTING``."""
    levels = np.log(ladder(WIDEST, LEAST, config.laws.levels))
    return int(np.abs(levels - np.log(PARTING)).argmin())


def rise(plain: pd.DataFrame, rare: pd.DataFrame, m: int, *, levels: bool = True) -> np.ndarray:
    """Returns by how much a mode raises mean square over the quantile, as a logarithm.

    Of trained networks, set by set: with shape (sets, levels), or (sets,) over all levels.
    """
    names = ("by_level_l2", "by_level_d") if levels else ("levels_l2", "levels_q")
    ratios = []
    for rows in (rare, plain):
        mean, tail = (at_size(rows, name, m) for name in names)
        ratios.append(np.log(mean) - np.log(tail))
    return ratios[0] - ratios[1]


def at_size(rows: pd.DataFrame, column: str, m: int) -> np.ndarray:
    """Returns what trained networks have at an m, with shape (sets, ...)."""
    return family(where(trained(rows), m=m), column)[:, 0]


def _alike(rows: pd.DataFrame) -> Iterator[Measured]:
    pairs = {
        "at the least noise": ("sigma_l2", f"sigma_d_{DELTA:g}"),
        "over all levels, δ/N": ("levels_l2", "levels_d"),
    }
    for place, (mean, tail) in pairs.items():
        yield Question(
            f"Without an implanted mode the ratio of both errors is the same at every m, {place}",
            "its largest change from that of the largest m, as a logarithm", below(SAME),
            figure="data-like", note="a maximum over m, whose interval the bootstrap moves up",
        ), _changed(rows, mean, tail)  # fmt: skip


def _changed(rows: pd.DataFrame, mean: str, tail: str) -> Confidence | None:
    """Returns the largest change over m of the logarithm of two errors' ratio."""
    ratio = np.log(matrix(rows, tail)[0]) - np.log(matrix(rows, mean)[0])

    def largest(ratio: np.ndarray) -> float:
        return float(np.abs((ratio - ratio[:, -1:]).mean(0)).max())

    return bootstrap(largest, ratio, resamples=400) if len(ratio) > 3 else None


def _ordered(config: ComplexityConfig, rows: pd.DataFrame, eta: float) -> Iterator[Measured]:
    """Compares the orders of both errors; alike, they tell samples about equally well."""
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
            f"rank correlation {FAMILY}", above(ALIKE, margin=SHOWS - ALIKE), figure="families",
            note="mean over training sets",
        ), student(rank_correlation(*errors))  # fmt: skip


def _told(rows: pd.DataFrame) -> Iterator[Measured]:
    error = family(rows, "levels_l2")
    for outcome in ("w2", "tv", "excess"):
        yield Question(
            f"Without it, the less the error, the less {OUTCOMES[outcome]}: ranks are "
            f"correlated by more than {RANKS:g}", f"rank correlation {FAMILY}", above(RANKS),
            figure="families",
            note="mean over training sets; mean square over all levels",
        ), student(rank_correlation(family(rows, outcome), error))  # fmt: skip


def _memorized(rows: pd.DataFrame) -> Iterator[Measured]:
    m, steps = (sorted(rows[name].unique()) for name in ("m", "step"))
    few, many = (where(rows, m=size) for size in (m[0], m[-1]))
    span = f"of m = {m[0]:,} samples, from {steps[-2]:,} to {steps[-1]:,} steps of training"
    yield Question(
        f"{m[0]:,} samples are memorized", "share of samples that are copies at the end",
        above(COPIES), figure="memory",
        note="nearer to a training sample than all but 1 % of true samples are",
    ), student(family(few, "copied")[:, -1])  # fmt: skip
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


def _kept(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Returns each network's value at the end over that at the length of training before."""
    found = family(rows, column)
    return found[:, -1] / found[:, -2]
