"""Matrices as tables of Arrow: columns x1 … xD, or one column of fixed-size lists."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def array_schema(
    shape: Sequence[int], dtype: str, levels: int | None, *, one_list: bool, name: str = "image"
) -> pa.Schema:
    """Returns the schema of rows of a shape."""
    kind, width = pa.from_numpy_dtype(np.dtype(dtype)), math.prod(shape)
    if not one_list:
        return pa.schema([(f"x{k + 1}", kind) for k in range(width)])
    metadata = {"shape": json.dumps(list(shape))}
    metadata |= {} if levels is None else {"levels": json.dumps(levels)}
    return pa.schema([(name, pa.list_(kind, width))], metadata=metadata)


def array_table(
    x: np.ndarray,
    levels: int | None = None,
    *,
    one_list: bool = True,
    name: str = "image",
    **beside: Sequence[object],
) -> pa.Table:
    """Returns rows with shape (N, *shape) as a table.

    ``levels`` is the number of levels of integers. ``one_list`` makes one column of fixed-size
    lists, called ``name``. ``beside`` are further columns; None is skipped.
    """
    x = np.ascontiguousarray(x)
    schema = array_schema(x.shape[1:], x.dtype.name, levels, one_list=one_list, name=name)
    if one_list:
        columns = [pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), type=schema[0].type)]
    else:
        columns = [pa.array(column) for column in x.reshape(len(x), math.prod(x.shape[1:])).T]
    table = pa.table(columns, schema=schema)
    for column, values in beside.items():
        if values is not None:
            table = table.append_column(column, pa.array(values))
    return table


def array_batch(
    x: np.ndarray, names: Sequence[str], levels: int | None, **options: object
) -> pa.RecordBatch:
    """Returns columns of ``array_table`` as one batch."""
    return array_table(x, levels, **options).select(names).combine_chunks().to_batches()[0]
