"""What is asked of denoisers of laws that look like data.

Training sets are nested in m: a set with all of its networks is one unit, and statistics are of
arrays with shape (sets, sizes).
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from scipy import stats

from ebflow.inference import Confidence, above, below, bootstrap, student, within
from pipelines.reporting.claims import Question
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.results import matrix, where

SAME = 0.15
"""Errors are told apart where their ratio changes by more than this, as a logarithm."""

RATE = 0.05
"""Exponents of m are told apart from this difference on."""

RANKS = 0.2
"""Correlations of ranks are told apart from this difference on."""

NATS = 3.0
"""Mean log-densities are told apart from this difference on."""

COPIES = 0.1
"""A network memorises where more of its samples than this are copies; of true ones 0.01 are."""

PREDICTORS = {
    "levels_l2": "mean square over levels",
    "levels_d": "largest quantile error, δ/N",
    "levels_truncated": "truncated, over levels",
}
OUTCOMES = {
    "w2": "sliced W2",
    "tv": "TV of components",
    "excess": "−log q",
    "far_error": "weight of the implanted mode",
}

FOLLOWED = {
    "w2": ("levels_l2", "levels_d"),
    "far_error": ("levels_l2", "levels_d"),
    "tv": ("levels_d", "levels_l2"),
    "excess": ("levels_d", "levels_l2"),
}
"""By outcome: the error that it is said to follow, and the one that it is not."""

FIGURE = "data-like"

Measured = tuple[Question, Confidence | None]


def learnt(rows: pa.Table, law: str, eta: float, net: str = "residual") -> pa.Table:
    """Returns the rows of networks that learnt a law."""
    from pipelines.sample_complexity.denoisers import LEARNERS  # imports torch

    return where(rows, panel="truths", learner=LEARNERS[net], law=law, eta=eta)


def lead(config: ComplexityConfig) -> str:
    """Returns the law that claims are about; others are shown beside it."""
    return config.laws.names[0]


def questions(config: ComplexityConfig, rows: pa.Table) -> list[list[Measured]]:
    """Returns what is asked, with what was found: in groups, of which the first two lead.

    Do both errors ever tell networks apart differently? With an implanted mode, which tells what?
    And what do they tell of networks that memorise?
    """
    rare = [one for eta in config.laws.etas if eta for one in _implanted(config, rows, eta)]
    if 0.0 not in config.laws.etas:
        return [rare]
    plain = learnt(rows, lead(config), 0.0)
    unets = learnt(rows, lead(config), 0.0, "unet")
    memory = [*_memorised(plain), *(_unets(unets) if len(unets) else ())]
    groups = [list(_apart(config, plain)), rare, memory]
    return list(filter(None, groups))


def _apart(config: ComplexityConfig, rows: pa.Table) -> Iterator[Measured]:
    pairs = {
        "at the least noise": ("sigma_l2", f"sigma_d_{config.laws.delta:g}"),
        "over all levels, δ/N": ("levels_l2", "levels_d"),
    }
    ratios = {place: _ratio(rows, *columns) for place, columns in pairs.items()}
    for place, (ratio, _) in ratios.items():
        yield Question(
            f"Without an implanted mode the ratio of both errors is the same at every m, {place}",
            "its largest change from that of the largest m, as a logarithm", below(SAME),
            figure=FIGURE, note="a maximum over m, whose interval the bootstrap moves up",
        ), _bootstrapped(_largest_change, [ratio])  # fmt: skip
    for place, (ratio, m) in ratios.items():
        yield Question(
            f"Without an implanted mode both errors fall alike, {place}",
            "exponent in m of the quantile error less that of mean square", within(RATE),
            figure=FIGURE, note=f"{lead(config)}, m = {min(m):,} … {max(m):,}; a difference of "
            f"{RATE:g} is {100**RATE - 1:.0%} over two decades",
        ), student(_slopes(ratio, m))  # fmt: skip


def _largest_change(ratio: np.ndarray) -> float:
    return float(np.abs((ratio - ratio[:, -1:]).mean(0)).max())


def _ratio(rows: pa.Table, mean: str, tail: str) -> tuple[np.ndarray, list[int]]:
    """Returns the logarithm of the quantile error over mean square, and the m."""
    (first, m), (second, _) = matrix(rows, mean), matrix(rows, tail)
    return np.log(second) - np.log(first), m


def _slopes(values: np.ndarray, m: list[int]) -> np.ndarray:
    """Returns the exponent in m of every training set."""
    x = np.log(m) - np.mean(np.log(m))
    return values @ x / (x @ x)


def _memorised(rows: pa.Table) -> Iterator[Measured]:
    excess, m = matrix(rows, "excess")
    yield Question(
        f"A network of m = {m[0]:,} samples has samples likelier by more than {NATS:g} nats "
        f"than one of {m[-1]:,}",
        f"their mean −log q less that at m = {m[-1]:,}", below(-NATS), "nats", FIGURE,
        "of one training set, nested in m",
    ), student(excess[:, 0] - excess[:, -1])  # fmt: skip
    errors, _ = matrix(rows, "levels_l2")
    for outcome in ("tv", "w2", "excess"):
        yield Question(
            "Of the networks of a training set, the less the error, the less "
            f"{OUTCOMES[outcome]}: ranks are correlated by more than {RANKS:g}",
            "their rank correlation over m", above(RANKS), figure=FIGURE,
            note="mean over training sets; mean square over all levels",
        ), student(_ranks(errors.T, matrix(rows, outcome)[0].T))  # fmt: skip
    yield _copies(rows, "a network")


def _copies(rows: pa.Table, who: str) -> Measured:
    copied, m = matrix(rows, "copied")
    return Question(
        f"From m = {m[0]:,} samples {who} memorises them",
        "share of its samples that are copies", above(COPIES), figure=FIGURE,
        note="nearer to a training sample than all but 1 % of true samples are",
    ), student(copied[:, 0])  # fmt: skip


def _unets(rows: pa.Table) -> Iterator[Measured]:
    """Asks of networks that know of images what those ask that do not."""
    yield _copies(rows, "a U-Net")
    ratio, m = _ratio(rows, "levels_l2", "levels_d")
    sizes = " and ".join(f"{one:,}" for one in m)
    yield Question(
        f"The ratio of a U-Net's errors is the same at m = {sizes}",
        "its largest change from that of the largest m, as a logarithm", below(SAME),
        figure=FIGURE, note="over all levels, δ/N; no mode is implanted",
    ), _bootstrapped(_largest_change, [ratio])  # fmt: skip


def _ranks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation of each column, 0 where one of both is constant."""
    x, y = (ranks - ranks.mean(0) for ranks in (stats.rankdata(part, axis=0) for part in (x, y)))
    size = np.sqrt((x * x).sum(0) * (y * y).sum(0))
    return (x * y).sum(0) / np.where(size > 0, size, 1)


def _implanted(config: ComplexityConfig, rows: pa.Table, eta: float) -> Iterator[Measured]:
    m, rare = min(config.laws.sizes), learnt(rows, lead(config), eta)
    if 0.0 in config.laws.etas:
        plain = learnt(rows, lead(config), 0.0)
        rise = _rise(plain, rare, "by_level_l2") - _rise(plain, rare, "by_level_d")
        yield Question(
            f"A mode of weight η = {eta:g} raises mean square more than the quantile, by more "
            f"than {SAME:g}, m = {m:,}",
            "rise of mean square over that of the quantile error, as a logarithm",
            above(SAME), figure="levels",
            note="mean over the levels of noise, against networks of the law without it; "
            f"{_unseen(rare):.0%} of the training sets have no sample of it",
        ), student(rise)  # fmt: skip
    for outcome, (better, worse) in FOLLOWED.items():
        arrays = [matrix(rare, name)[0] for name in (outcome, better, worse)]
        yield Question(
            f"With a mode of weight η = {eta:g}, {OUTCOMES[outcome]} follows the "
            f"{PREDICTORS[better]} more than the {PREDICTORS[worse]}, by more than {RANKS:g}",
            "difference of their rank correlations at equal m", above(RANKS),
            figure=FIGURE, note="mean over m; bootstrap over training sets",
        ), _bootstrapped(_lead_of_ranks, arrays)  # fmt: skip


def _bootstrapped(statistic: Callable[..., float], arrays: list[np.ndarray]) -> Confidence | None:
    return bootstrap(statistic, *arrays, resamples=400) if len(arrays[0]) > 3 else None


def _lead_of_ranks(outcome: np.ndarray, better: np.ndarray, worse: np.ndarray) -> float:
    """Returns by how much one error's rank correlation is above another's, mean over m."""
    return at_equal_m(outcome, better) - at_equal_m(outcome, worse)


def at_equal_m(outcome: np.ndarray, error: np.ndarray) -> float:
    """Returns the rank correlation over training sets, mean over m, of shapes (sets, sizes)."""
    return float(_ranks(error, outcome).mean())


def _unseen(rows: pa.Table) -> float:
    """Returns the share of sets that have no sample of the mode at the least m."""
    return float((matrix(rows, "n_far")[0][:, 0] == 0).mean())


def _rise(plain: pa.Table, rare: pa.Table, column: str) -> np.ndarray:
    """Returns by how much an error is above the other's at the least m, set by set, as log."""
    least = min(rare["m"].to_pylist())
    first, second = (by_level(rows, column, least) for rows in (plain, rare))
    return np.log(second / first).mean(1)


def by_level(rows: pa.Table, column: str, m: int) -> np.ndarray:
    """Returns an error at an m with shape (sets, levels)."""
    return np.array(where(rows, m=m).sort_by("seed")[column].to_pylist())
