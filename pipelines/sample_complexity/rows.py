"""Rows of results: one for each training set, size m and length of training.

Columns of all panels: ``panel``, ``learner``, ``seed`` (the training set), ``m``, ``n_far`` (its
samples of the far or added mode), ``size`` (d), ``eta``, and errors (see
``ebflow.complexity.errors``). Others: ``ratio`` (R/σ), ``width`` and
``depth`` of networks, and ``step`` (of training).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FILE = "rows.parquet"


def read(folders: Sequence[Path]) -> pd.DataFrame:
    """Returns the rows of all cells."""
    parts = [pd.read_parquet(folder / FILE) for folder in folders]
    return pd.concat(parts, ignore_index=True).astype({"m": "Int64", "step": "Int64"})


def where(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:  # noqa: ANN401
    """Returns the rows in which columns have these values."""
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    return rows


def matrix(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, list[int]]:
    """Returns a column with shape (training sets, sizes), and the sizes m."""
    table = rows.dropna(subset="m").pivot(index="seed", columns="m", values=column)
    return table.to_numpy(float), table.columns.tolist()


def family(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Returns a column with shape (sets, networks, ...), of every m and length of training."""
    ordered = rows.sort_values(["seed", "m", "step"])
    values = np.array(ordered[column].tolist(), float)
    return values.reshape(rows["seed"].nunique(), -1, *values.shape[1:])


def trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows at the end of training."""
    return where(rows, step=rows["step"].max())
