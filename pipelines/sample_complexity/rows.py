"""The rows of the study, a row a training set and m (and length of training): made and read.

These columns as far as they apply: ``panel``, ``learner``, ``ratio`` (R/σ), ``size`` (d),
``hypotheses`` (|H|), ``height`` (S), ``a``, ``epsilon``, ``eta``, ``m`` (none: no sample is seen
twice), ``step`` (of training, where networks are measured after several), ``seed``, ``n_far``
(training samples of the far mode), ``wrong`` (whether ERM erred), the errors of
``ebflow.complexity.errors.summary``, those over all N levels of a sampler (``levels_l2``,
``levels_t`` and ``levels_q``, roots of means of squares of the errors in mean square, truncated
and at δ; ``levels_d``, the largest Dᵟ with δ/N), ``kl`` (nats), ``kl_floor`` (that of the smoothed
truth), ``tv``, ``w1``, ``w2``, ``far_mass`` and its error, ``theta`` (logit of a mode's weight);
those of denoisers are named there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

FILE = "rows.parquet"
COUNTED = {"m": "Int64", "step": "Int64"}
"""Whole numbers that some rows lack."""


def frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Returns rows from tensors and sequences of as many numbers, and constants."""
    return pd.DataFrame({k: v.numpy() if isinstance(v, Tensor) else v for k, v in columns.items()})


def geometric(first: float, last: float, ratio: float) -> list[int]:
    """Returns whole numbers from ``first`` to at least ``last``, about ``ratio`` apart."""
    count = int(np.ceil(np.log(last / first) / np.log(ratio))) + 1
    return sorted({round(first * ratio**k) for k in range(count)})


def read(folders: Sequence[Path]) -> pd.DataFrame:
    """Returns the rows of all cells."""
    parts = [pd.read_parquet(folder / FILE) for folder in folders]
    return pd.concat(parts, ignore_index=True).astype(COUNTED)


def where(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:  # noqa: ANN401
    """Returns the rows in which columns have these values."""
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    return rows


def matrix(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, list[int]]:
    """Returns a column with shape (training sets, sizes), and the sizes m, of finitely many."""
    found = rows.dropna(subset="m").pivot(index="seed", columns="m", values=column)
    return found.to_numpy(float), found.columns.tolist()


def family(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Returns a column with shape (sets, networks, ...), of every m and length of training."""
    ordered = rows.sort_values(["seed", "m", "step"])
    found = np.array(ordered[column].tolist(), float)
    return found.reshape(rows["seed"].nunique(), -1, *found.shape[1:])


def trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows at the end of training."""
    return where(rows, step=rows["step"].max())
