"""Tables of the study, from tensors and constants."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ebflow.complexity.instances import Stratified


def table(rows: int, **columns: Any) -> pa.Table:  # noqa: ANN401
    """Returns a table; a constant stands in every row, and a column that is None is left out.

    Arguments:
        rows: Their number.
        columns: Tensors with shape (rows,) or (rows, K), sequences, or constants.
    """
    known = {name: value for name, value in columns.items() if value is not None}
    return pa.table({name: _column(value, rows) for name, value in known.items()})


def _column(value: Any, rows: int) -> pa.Array:  # noqa: ANN401
    if isinstance(value, str | int | float):
        return pa.array([value] * rows)
    found = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if found.ndim == 1:
        return pa.array(found)
    flat = pa.array(found.astype(np.float32).reshape(-1))
    offsets = np.arange(0, found.size + 1, found.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def over_levels(found: Sequence[Mapping[str, Tensor]], delta: float) -> dict[str, Tensor]:
    """Returns the errors over all N levels of a sampler, from those of each, with shape (E,).

    Roots of means of squares of the errors in mean square, truncated and at δ, and the largest Dᵟ
    with δ/N, which the theorems of sampling ask for.
    """
    means = {"l2": "sigma_l2", "t": "sigma_truncated", "q": f"sigma_d_{delta:g}"}
    rare = torch.stack([one[f"sigma_d_{share(delta, len(found)):g}"] for one in found])
    return {
        **{
            f"levels_{short}": torch.stack([one[name] for one in found]).square().mean(0).sqrt()
            for short, name in means.items()
        },
        "levels_d": rare.amax(0),
    }


def share(delta: float, levels: int) -> float:
    """Returns the mass δ/N of one of N levels."""
    return delta / levels


def geometric(first: float, last: float, ratio: float) -> list[int]:
    """Returns whole numbers from ``first`` to at least ``last``, about ``ratio`` apart."""
    count = int(np.ceil(np.log(last / first) / np.log(ratio))) + 1
    return sorted({round(first * ratio**k) for k in range(count)})


@torch.no_grad()
def held_out_loss(score: Tensor, test: Stratified, sigma: float) -> Tensor:
    """Returns E‖σ ŝ + z‖² with shape (...), for scores with shape (..., N, D) at test points."""
    z = (test.noisy - test.clean) / sigma
    return (sigma * score + z).square().sum(-1) @ test.weights.to(score.dtype)
