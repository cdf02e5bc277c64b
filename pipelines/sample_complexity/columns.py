"""Tables of the study, from tensors and constants."""

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


def geometric(first: float, last: float, ratio: float) -> list[int]:
    """Returns whole numbers from ``first`` to at least ``last``, about ``ratio`` apart."""
    count = int(np.ceil(np.log(last / first) / np.log(ratio))) + 1
    return sorted({round(first * ratio**k) for k in range(count)})


@torch.no_grad()
def held_out_loss(score: Tensor, test: Stratified, sigma: float) -> Tensor:
    """Returns E‖σ ŝ + z‖² with shape (...), for scores with shape (..., N, D) at test points."""
    z = (test.noisy - test.clean) / sigma
    return (sigma * score + z).square().sum(-1) @ test.weights.to(score.dtype)
