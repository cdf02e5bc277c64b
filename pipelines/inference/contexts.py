"""Contexts of samples: the columns of a file, typed values, or values like the training rows'."""

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.randomness import RowGenerator, normal
from ebflow.tables import Columns
from pipelines.data.messages import Place
from pipelines.data.schema import encoded
from pipelines.inference.matching import context_codes
from pipelines.inference.models import Model
from pipelines.inference.tables import codes_of


def in_file(words: Sequence[str]) -> bool:
    """Returns whether contexts are those of a file, whose name is the only word."""
    return len(words) == 1 and "=" not in words[0]


def parse_contexts(words: Sequence[str], model: Model) -> Tensor | None:
    """Returns the contexts that words name, with shape (M, C); None for a flow without contexts.

    Arguments:
        words: A file, or ``name=value`` of every column.
        model: The flow.

    Raises:
        BadInput: If a column is missing or unknown, or a value is not a known level.
    """
    if model.context is None:
        if words:
            raise BadInput(
                f"--context: found {words[0]}, expected none: {model.label} is not conditional"
            )
        return None
    columns = model.context
    if in_file(words):
        codes = context_codes(words[0], columns)
    else:
        codes = encoded(columns, _typed(words, columns), Place("--context", 0))
    return torch.from_numpy(columns.one_hot(codes))


def _typed(words: Sequence[str], columns: Columns) -> pa.Table:
    """Returns the frame of one row that is typed."""
    typed = dict(word.partition("=")[::2] for word in words)
    names = [column.name for column in columns.modelled]
    if typed.keys() != set(names):
        raise BadInput(
            f"--context: found {' '.join(words) or 'nothing'}, expected a file, or name=value of "
            f"{', '.join(names)}"
        )
    return pa.table({name: [value] for name, value in typed.items()})


def spread(model: Model, count: int) -> Tensor | None:
    """Returns contexts spread as those of the training rows, with shape (count, C).

    Each category has its likeliest level. The result is None for a flow without contexts.
    """
    if model.context is None:
        return None
    flow = model.flow
    like = torch.zeros((), dtype=flow.dtype)
    noise = normal((count, flow.context), like, RowGenerator(0, "context"))
    contexts = (flow.context_mean + noise / flow.context_scale).double().numpy()
    return torch.from_numpy(model.context.one_hot(codes_of(model.context, contexts)))
