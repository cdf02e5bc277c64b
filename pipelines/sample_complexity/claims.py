"""The claims of the study, the numbers that decide them, and checks of the instrument.

A unit is a training set, nested in m, with all networks that learned from it. Its networks of
every m and length of training are its *family*: they differ far more than networks of equal m do,
so ranks within a family distinguish errors.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745. Claims are about shapes: exponents and where they vanish. Its
constants and its powers of ε and d are upper bounds.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain

import numpy as np
import pandas as pd

from pipelines.reporting import statistics
from pipelines.reporting.claims import Claim, Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Region, above, below, bootstrap, student
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.data_like import DELTA, LEARNER, LEAST, WIDEST, ladder
from pipelines.sample_complexity.exponents import (
    NETWORKS,
    Exponent,
    about_classes,
    about_networks,
    closed_forms,
)
from pipelines.sample_complexity.flows import about_flows
from pipelines.sample_complexity.images import about_images_by_size
from pipelines.sample_complexity.learned import about_learned
from pipelines.sample_complexity.minimizer import about_minimizers, check_quantiles
from pipelines.sample_complexity.rows import family, matrix, trained, where
from pipelines.sample_complexity.sampling import about_sampling, about_steps
from pipelines.sample_complexity.two_points import about_two_points, check_chances

SAME = 0.15  # Errors differ if the logarithm of their ratio changes by more than this
SAME_ORDER = 0.8  # Least rank correlation of orders that count as the same
BETTER = 0.1  # Estimators differ if the logarithm of their errors' ratio is more than this

# The noise level at which missing a mode costs most, chosen from the rows of earlier runs.
PARTING = 8.0

# Columns of the errors in mean square and at the quantile.
BY_LEVEL, OVER_LEVELS = ("by_level_l2", "by_level_d"), ("levels_l2", "levels_q")

FAMILY = "rank correlation over the networks of a training set, of every m and length of training"

WOULD_CHANGE = (
    "Data with rare modes of their own: a mixture of few components has none but those added.",
    "Networks that are trained until the training set alone limits them: at the largest m the "
    "number of steps does, too.",
    "Other networks: within a training set ranks are over m and the length of training, which "
    "change both errors alike.",
)


def conclusion(
    config: ComplexityConfig, exponents: Sequence[Exponent], rows: pd.DataFrame
) -> Conclusion:
    """Returns claims and checks.

    Most trainings of scale smoke are too short to judge them; what trains nothing is judged.
    """
    panels = {name: where(rows, panel=name) for name in rows["panel"].unique()}
    groups = about_images(config, panels["truths"])
    trained = [
        *chain(*groups),
        *about_images_by_size(config, panels["images"]),
        *about_networks(exponents),
        _fresh(config, panels["networks"]),
        *about_flows(panels["flows"]),
    ]
    if config.scale == "smoke":
        trained = [(question, None) for question, _ in trained]
    judged = [
        *about_two_points(panels["two points"], panels["finite"]),
        *about_classes(config, exponents),
        *about_sampling(panels["sampling"]),
        *about_steps(panels["steps"]),
        *about_learned(panels["learned"]),  # trained for as long as at scale cpu
        *about_minimizers(panels["minimizer"]),
    ]
    checks = [
        check_chances(panels["two points"]),
        *closed_forms(exponents),
        check_quantiles(panels["minimizer"]),
    ]
    claims = decide([*trained, *judged])
    starts = accumulate(map(len, groups[:-1]), initial=0)
    findings = tuple("; ".join(map(_sentence, claims[at : at + 2])) + "." for at in starts)
    measured_first = (*claims[len(trained) :], *claims[: len(trained)])
    return Conclusion(findings, measured_first, tuple(checks), WOULD_CHANGE)


def _sentence(claim: Claim) -> str:
    value = f": {claim.quantity} {claim.estimate}" if claim.estimate else ""
    return f"{claim.claim} ({claim.verdict}{value})"


def _mean(
    values: np.ndarray,
    expected: Region,
    claim: str,
    quantity: str,
    figure: str | None,
    note: str = "mean over training sets",
    item: str = "G8",
) -> Measured:
    """Returns a claim on the mean of values, one of each training set."""
    question = Question(claim, quantity, expected, figure=figure, note=note, item=item)
    return question, student(values)


def about_images(config: ComplexityConfig, rows: pd.DataFrame) -> list[list[Measured]]:
    """Returns groups of claims; the first two of each group are the findings."""
    etas = config.distribution.etas
    plain, *rare = (learned(rows, eta) for eta in (0.0, *etas))
    alike = list(_alike(trained(plain)))
    if not etas:
        return [alike]
    return [[*_parted(config, plain, rare), *alike], list(_ordered(config, rare[-1]))]


def learned(rows: pd.DataFrame, eta: float) -> pd.DataFrame:
    """Returns the rows of networks, with an added mode of this weight; 0: without."""
    return where(rows, learner=LEARNER, eta=eta)


def _parted(
    config: ComplexityConfig, plain: pd.DataFrame, rare: list[pd.DataFrame]
) -> Iterator[Measured]:
    """Compares the effects of the lightest and the heaviest mode on both errors."""
    sizes, etas, place = config.distribution.sizes, config.distribution.etas, parting(config)
    quantity = "rise of mean square over that of the quantile error, as a logarithm"
    note = "against networks of the distribution without it, paired by training set"
    yield _mean(
        rise(plain, rare[-1], sizes[-1])[:, place], above(SAME),
        f"At σ = {PARTING:g} a mode of weight η = {etas[-1]:g} raises mean square more than the "
        f"quantile, m = {sizes[-1]:,}", quantity, "dose", note,
    )  # fmt: skip
    yield _mean(
        rise(plain, rare[-1], sizes[0], OVER_LEVELS), above(SAME),
        f"Over all levels it does so too, m = {sizes[0]:,}",
        "the same of roots of means of squares over levels", "dose", note,
    )  # fmt: skip
    yield _mean(
        rise(plain, rare[0], sizes[0])[:, place], below(SAME),
        f"A mode of weight η = {etas[0]:g} does not, even at σ = {PARTING:g}, m = {sizes[0]:,}",
        quantity, "dose", note,
    )  # fmt: skip


def parting(config: ComplexityConfig) -> int:
    """Returns the index of the level that is nearest to ``PARTING``."""
    levels = np.log(ladder(WIDEST, LEAST, config.distribution.levels))
    return int(np.abs(levels - np.log(PARTING)).argmin())


def rise(
    plain: pd.DataFrame, rare: pd.DataFrame, m: int, errors: Sequence[str] = BY_LEVEL
) -> np.ndarray:
    """Returns by how much a mode raises mean square over the quantile, as a logarithm.

    Of trained networks, set by set: with shape (sets, levels), or (sets,) over all levels.
    """
    first, second = (
        np.subtract(*(np.log(at_size(rows, name, m)) for name in errors)) for rows in (rare, plain)
    )
    return first - second


def at_size(rows: pd.DataFrame, column: str, m: int) -> np.ndarray:
    """Returns a column of the trained networks of an m, with shape (sets, ...)."""
    return family(where(trained(rows), m=m), column)[:, 0]


def _alike(rows: pd.DataFrame) -> Iterator[Measured]:
    pairs = {
        "at the least noise": ("sigma_l2", f"sigma_d_{DELTA:g}"),
        "over all levels, δ/N": ("levels_l2", "levels_d"),
    }
    for place, (mean, tail) in pairs.items():
        ratio = np.log(matrix(rows, tail)[0]) - np.log(matrix(rows, mean)[0])
        number = bootstrap(_largest_change, ratio, resamples=400) if len(ratio) > 3 else None
        yield Question(
            f"Without an added mode the ratio of both errors is the same at every m, {place}",
            "its largest change from that of the largest m, as a logarithm", below(SAME),
            figure="data-like", note="a maximum over m, whose interval the bootstrap moves up",
            item="G8",
        ), number  # fmt: skip


def _largest_change(ratio: np.ndarray) -> float:
    """Returns the largest change over m, for ratios with shape (sets, sizes)."""
    return float(np.abs((ratio - ratio[:, -1:]).mean(0)).max())


def _ordered(config: ComplexityConfig, rows: pd.DataFrame) -> Iterator[Measured]:
    """Compares the orders of networks by both errors."""
    place, eta = parting(config), config.distribution.etas[-1]
    pairs = {
        "over all levels": [family(rows, name) for name in OVER_LEVELS],
        f"at σ = {PARTING:g}": [family(rows, name)[..., place] for name in BY_LEVEL],
    }
    for levels, errors in pairs.items():
        yield _mean(
            statistics.rank_correlation(*errors), above(SAME_ORDER),
            f"With a mode of weight η = {eta:g}, mean square and quantile order networks alike, "
            f"{levels}: ranks are correlated by more than {SAME_ORDER:g}", FAMILY, None,
        )  # fmt: skip


def _fresh(config: ComplexityConfig, rows: pd.DataFrame) -> Measured:
    """Compares networks of equal training sets by the errors on the bulk."""
    shape = {"width": config.learners.width, "depth": config.learners.depth}
    networks = where(rows, size=1, **shape)
    keys = ["seed", "ratio", "m"]
    once, fresh = (
        where(networks, learner=name).set_index(keys)["sigma_l2_bulk"].sort_index()
        for name in NETWORKS
    )
    gaps = (np.log(once) - np.log(fresh)).groupby("seed")
    return _mean(
        np.array([of_set.to_numpy().mean() for _, of_set in gaps]), above(BETTER),
        f"Fresh noise at every step is the better estimator, by more than {BETTER:g}",
        "bulk error with one noise a sample over that with fresh noise, as a logarithm",
        None, "mean over all m and R/σ, paired by training set", "G2",
    )  # fmt: skip
