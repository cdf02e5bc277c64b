"""What samples of a conditional flow are given: a file's columns, what is typed, or a spread."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.randomness import RowGenerator, normal
from ebflow.tables.levels import Levels, expanded, is_numeral, split
from pipelines.answers.models import Model
from pipelines.data.layout import read_given
from pipelines.data.messages import Place
from pipelines.data.sources import find_source


def in_file(words: Sequence[str]) -> bool:
    """Whether contexts are those of a file, which the one word names."""
    return len(words) == 1 and "=" not in words[0]


def parse_contexts(words: Sequence[str], model: Model) -> Tensor | None:
    """Returns the contexts that words name, with shape (M, C); None of a flow without.

    Arguments:
        words: A file, or ``name=value`` of every column.
        model: The flow.

    Raises:
        BadInput: If a column is missing or unknown, or a value is none of its levels.
    """
    if not model.given:
        if words:
            raise BadInput(
                f"--context: found {words[0]}, expected none: {model.label} is not conditional"
            )
        return None
    names, levels = model.given["names"], model.given["levels"]
    if in_file(words):
        stored = find_source(words[0]).contexts(names, levels)
    else:
        stored = _typed(words, names, levels)
    return torch.from_numpy(expanded(stored, levels))


def _typed(words: Sequence[str], names: Sequence[str], levels: Levels) -> np.ndarray:
    """Returns one row of stored contexts, as of a file of one."""
    typed = dict(word.partition("=")[::2] for word in words)
    if typed.keys() != set(names):
        raise BadInput(
            f"--context: found {' '.join(words) or 'nothing'}, expected a file, or name=value of "
            f"{', '.join(names)}"
        )
    pairs = ((typed[name], known) for name, known in zip(names, levels, strict=True))
    values = [float(v) if known is None and is_numeral(v) else v for v, known in pairs]
    batch = pa.record_batch([pa.array([value]) for value in values], names=list(names))
    given = read_given(batch.schema, names, levels, file="--context")
    return given.stored(batch, Place("--context", 0))


def spread(model: Model, count: int) -> Tensor | None:
    """Returns contexts spread as the training rows', with shape (count, C); None without.

    Each category has its likeliest level.
    """
    if not model.given:
        return None
    flow = model.flow
    like = torch.zeros((), dtype=flow.dtype)
    noise = normal((count, flow.context), like, RowGenerator(0, "context"))
    contexts = (flow.context_mean + noise / flow.context_scale).double().numpy()
    levels = model.given["levels"]
    return torch.from_numpy(expanded(np.stack(split(contexts, levels), 1), levels))
