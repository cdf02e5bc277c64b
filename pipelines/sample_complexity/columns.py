"""Rows of tensors, grids of m, and columns of errors over all levels of a sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor


def frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Returns rows from tensors and sequences of as many numbers, and constants."""
    return pd.DataFrame({k: v.numpy() if isinstance(v, Tensor) else v for k, v in columns.items()})


def over_levels(found: Sequence[Mapping[str, Tensor]], delta: float) -> dict[str, Tensor]:
    """Returns the errors over all N levels of a sampler, from those of each, with shape (E,).

    Roots of means of squares of the errors in mean square, truncated and at δ, and the largest Dᵟ
    with δ/N, which the theorems of sampling ask for.
    """
    names = {"l2": "sigma_l2", "t": "sigma_truncated", "q": f"sigma_d_{delta:g}"}
    columns = {k: torch.stack([one[name] for one in found]) for k, name in names.items()}
    rare = torch.stack([one[f"sigma_d_{share(delta, len(found)):g}"] for one in found])
    means = {f"levels_{k}": values.square().mean(0).sqrt() for k, values in columns.items()}
    return means | {"levels_d": rare.amax(0)}


def share(delta: float, levels: int) -> float:
    """Returns the mass δ/N of one of N levels."""
    return delta / levels


def geometric(first: float, last: float, ratio: float) -> list[int]:
    """Returns whole numbers from ``first`` to at least ``last``, about ``ratio`` apart."""
    count = int(np.ceil(np.log(last / first) / np.log(ratio))) + 1
    return sorted({round(first * ratio**k) for k in range(count)})
