"""The tables of denoisers of laws that look like data."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ebflow.inference import student
from pipelines.reporting.claims import Table
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.law_questions import (
    OUTCOMES,
    PREDICTORS,
    family,
    learnt,
    ranked,
)
from pipelines.sample_complexity.results import where

COLUMNS = {
    "n_far": "samples of the mode",
    "sigma_l2": "σ L2 / √D",
    "quantile": "σ Dᵟ / √D",
    "levels_l2": "σ L2 / √D, levels",
    "levels_q": "σ Dᵟ / √D, levels",
    "levels_d": "largest σ Dᵟ / √D, δ/N",
    "copied": "copies",
    "excess": "−log q, excess",
    "tv": "TV of components",
    "w2": "sliced W2",
    "far_error": "error of the mode's weight",
}
"""By column: its heading."""

ERRORS = ("sigma_l2", "quantile", *PREDICTORS)
"""Those that are told over √D."""


def denoisers(config: ComplexityConfig, rows: pa.Table) -> Table:
    """Returns means over training sets."""
    truths = where(rows, panel="truths")
    truths = truths.append_column("quantile", truths[f"sigma_d_{config.laws.delta:g}"])
    keys = ("law", "eta", "learner", "m", "step")
    grouped = truths.group_by(("size", *keys)).aggregate([(name, "mean") for name in COLUMNS])
    lines = [
        (
            f"{row['law']}, η = {row['eta']:g}, {row['learner']}",
            *("" if row[name] is None else f"{row[name]:,}" for name in ("m", "step")),
            *(_cell(row[f"{n}_mean"], row["size"] if n in ERRORS else 1) for n in COLUMNS),
        )
        for row in grouped.sort_by([(key, "ascending") for key in keys]).to_pylist()
    ]
    note = (
        "Means over training sets; noise in units of a feature's deviation; excess in nats over "
        "the mean of true samples. Copies are nearer to a training sample than all but 1 % of "
        "true samples. The law without the mode: its exact denoiser."
    )
    headings = ("law", "m", "steps", *COLUMNS.values())
    return Table("Laws that look like data", headings, lines, note)


def _cell(value: float | None, size: int) -> str:
    return "" if value is None or np.isnan(value) else f"{value / size**0.5:.3g}"


def correlations(config: ComplexityConfig, rows: pa.Table) -> Table:
    """Returns how each error orders the networks of a training set, against each outcome."""
    lines = list(_correlations(config, rows))
    note = (
        "Spearman's, over the networks of a training set, of every m and length of training, mean "
        "over training sets with 95 % intervals. Errors over all levels of the sampler."
    )
    headings = ("law, outcome", *PREDICTORS.values())
    return Table("Which error tells what", headings, lines, note)


def _correlations(config: ComplexityConfig, rows: pa.Table) -> Iterator[tuple[str, ...]]:
    for law in config.laws.names:
        for eta in config.laws.etas:
            networks = learnt(rows, law, eta)
            for outcome, name in OUTCOMES.items():
                found = family(networks, outcome)
                if np.isfinite(found).all():
                    cells = (_correlation(found, family(networks, key)) for key in PREDICTORS)
                    yield (f"{law}, η = {eta:g}: {name}", *cells)


def _correlation(outcome: np.ndarray, error: np.ndarray) -> str:
    value, low, high = student(ranked(outcome, error)).interval()
    return f"{value:.2f}" if np.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
