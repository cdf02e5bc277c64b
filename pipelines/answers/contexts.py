"""What a conditional flow is given: columns of a source, or what is typed."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ebflow.data import coded, expanded, split
from ebflow.data.sources import Reader, find_source
from ebflow.errors import BadInput
from ebflow.randomness import RowGenerator, normal
from pipelines.answers.models import Model


def window(reader: Reader, model: Model, first: int, last: int) -> Tensor | None:
    """Returns the contexts of rows ``first`` … ``last`` − 1 with shape (B, C); None without."""
    if not model.given:
        return None
    levels = model.given["levels"]
    return torch.from_numpy(expanded(reader.contexts(first, last, levels), levels))


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
    if len(words) == 1 and "=" not in words[0]:
        stored = find_source(words[0]).contexts(names, levels)
    else:
        typed = dict(_pair(word, names) for word in words)
        stored = np.array([[_stored(typed, *each) for each in zip(names, levels, strict=True)]])
    return torch.from_numpy(expanded(stored, levels))


def _pair(word: str, names: Sequence[str]) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or name not in names:
        raise BadInput(
            f"--context: found {word}, expected a file, or name=value of {', '.join(names)}"
        )
    return name, value


def _stored(typed: Mapping[str, str], name: str, levels: Sequence[str] | None) -> float:
    if name not in typed:
        raise BadInput(f"--context: found no {name}=value, expected one")
    value, found = typed[name], None
    if levels is None:
        try:
            found = float(value)
        except ValueError:
            found = np.nan
        expected, good = "a finite number", np.isfinite(found)
    else:
        found = coded([value], levels)[0]
        expected, good = f"one of {', '.join(levels)}", found >= 0
    if not good:
        raise BadInput(f"--context: found {name}={value}, expected {expected}")
    return found


def spread(model: Model, count: int) -> Tensor | None:
    """Returns contexts spread as the training rows', with shape (count, C); None without.

    Each category has its likeliest level.
    """
    if not model.given:
        return None
    flow = model.flow
    noise = normal((count, flow.context), flow.like, RowGenerator(0, "context"))
    contexts = (flow.context_mean + noise / flow.context_scale).double().numpy()
    levels = model.given["levels"]
    return torch.from_numpy(expanded(np.stack(split(contexts, levels), 1), levels))
