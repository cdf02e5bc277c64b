"""The tables on the page of the study of sample complexity."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from pipelines.reporting.result import Table, plus_minus
from pipelines.reporting.statistics import rank_correlation, student
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.denoiser_questions import OUTCOMES, PREDICTORS, learnt
from pipelines.sample_complexity.denoisers import DELTA
from pipelines.sample_complexity.exponents import Answer
from pipelines.sample_complexity.rows import family, where

COUNTS = {"m": "m", "step": "steps"}

ERRORS = {
    "sigma_l2": "σ L2",
    "quantile": "σ Dᵟ",
    "levels_l2": "σ L2, levels",
    "levels_q": "σ Dᵟ, levels",
    "levels_d": "largest σ Dᵟ, δ/N",
}
"""By column: its heading."""


def tables(config: ComplexityConfig, answers: Sequence[Answer], rows: pd.DataFrame) -> list[Table]:
    """Returns what the page tells besides claims and figures."""
    panels = {name: where(rows, panel=name) for name in ("truths", "samplers", "pairs")}
    return [
        _data_like(panels["truths"]),
        Table(
            "Which error tells what",
            ("law, outcome", *PREDICTORS.values()),
            list(_correlations(config, rows)),
            "Spearman's, over the networks of a training set, of every m and length of training, "
            "mean over training sets with 95 % intervals. Errors over all levels of the sampler.",
        ),
        Table(
            "Exponents",
            ("learner", "quantity", "against", "exponent", "m* at each point"),
            list(map(_exponent, answers)),
            "Where the error does not cross ε on the grid of m there is no point.",
        ),
        _samplers(panels["samplers"], config.grid.deltas[-1]),
        _pairs(panels["pairs"]),
    ]


def _data_like(rows: pd.DataFrame) -> Table:
    rows = rows.assign(quantile=rows[f"sigma_d_{DELTA:g}"])
    rows[[*ERRORS]] = rows[[*ERRORS]].div(rows["size"] ** 0.5, axis=0)
    return _means(
        "Laws that look like data",
        rows,
        {"law": "law", "eta": "η", "learner": "learner", **COUNTS},
        {"n_far": "samples of the mode", **ERRORS, "copied": "copies", "excess": "−log q, excess",
         "tv": "TV of components", "w2": "sliced W2", "far_error": "error of the mode's weight"},
        "Means over training sets; errors over √D, noise in units of a feature's deviation; "
        "excess in nats over the mean of true samples. Copies are nearer to a training sample "
        "than all but 1 % of true samples. The law without the mode: its exact denoiser.",
    )  # fmt: skip


def _samplers(rows: pd.DataFrame, delta: float) -> Table:
    return _means(
        "Samplers",
        rows.assign(quantile=rows[f"sigma_d_{delta:g}"]),
        {"learner": "scores", **COUNTS},
        {**ERRORS, "tv": "TV", "w2": "W2", "far_mass_error": "error of the far mass"},
        "Means over training sets, on the line, by the reverse SDE; the far mass is "
        f"{rows['eta'].iloc[0]:.3g}.",
    )


def _pairs(rows: pd.DataFrame) -> Table:
    return _means(
        "Two Gaussians on the line",
        rows,
        {"a": "modes at ±", "learner": "objective", "m": "m"},
        {"kl": "KL, nats", "kl_floor": "KL of the learnt law"},
        "Means over training sets; without m no sample is seen twice. Denoising learns the "
        "smoothed law.",
    )


def _means(
    title: str,
    rows: pd.DataFrame,
    keys: Mapping[str, str],
    columns: Mapping[str, str],
    note: str,
) -> Table:
    """Returns the means of columns, group by group; both have headings."""
    means = rows.groupby([*keys], dropna=False)[[*columns]].mean().reset_index()
    lines = [tuple(map(_text, line)) for line in means.itertuples(index=False)]
    return Table(title, (*keys.values(), *columns.values()), lines, note)


def _text(value: str | float) -> str:
    """Returns a name or a number as text, and nothing of what is missing."""
    if isinstance(value, str) or pd.isna(value):
        return value if isinstance(value, str) else ""
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.3g}"


def _exponent(one: Answer) -> tuple[str, ...]:
    question = one.question
    points = ", ".join(f"{at:.3g}: {m:.0f}" for at, m in one.points[["at", "value"]].to_numpy())
    slope = plus_minus(one.slope.interval(), 2) if one.slope else ""
    return question.learner, question.quantity, question.against, slope, points


def _correlations(config: ComplexityConfig, rows: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Gives how each error orders the networks of a training set, against each outcome."""
    places = product(config.laws.names, config.laws.etas, OUTCOMES.items())
    for law, eta, (outcome, name) in places:
        networks = learnt(rows, law, eta)
        found = family(networks, outcome)
        if np.isfinite(found).all():
            ranks = (rank_correlation(found, family(networks, key)) for key in PREDICTORS)
            told = map(student, ranks)
            yield (f"{law}, η = {eta:g}: {name}", *(plus_minus(one.interval(), 2) for one in told))
