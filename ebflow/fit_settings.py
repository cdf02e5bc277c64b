"""The settings of ``ebflow.fit``, and their checks."""

import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from . import objectives
from .architectures import ARCHITECTURES
from .marginals import Bounds
from .tables import Column, Columns
from .tables.frames import TIMES, read

OBJECTIVE = "lazy_ml"  # The default objective
PLAIN = ("none", "standardize")  # Kinds of ``normalize`` without a matrix

#: Settings that replace those of a recipe, unless they are None
CHOSEN = ("normalize", "shrinkage", "lr", "weight_decay", "batch_size")
COUNT = ValueError, lambda n: isinstance(n, numbers.Integral) and n >= 1, "a whole number above 0"
POSITIVE = ValueError, lambda x: isinstance(x, numbers.Real) and x > 0, "a number above 0"

Rule = tuple[type[Exception], Callable[[Any], bool], str]


def _a_name_in(table: Mapping[str, Any]) -> Rule:
    """Returns the rule that a text is a name in a table."""
    names = f"one of {', '.join(table)}"
    return ValueError, lambda name: not isinstance(name, str) or name in table, names


# The error, the test and the description of each setting. None is a default, but not of ``seed``.
RULES: dict[str, Rule] = {
    "steps": COUNT,
    "batch_size": COUNT,
    "validate_every": COUNT,
    "patience": COUNT,
    "max_seconds": POSITIVE,
    "lr": POSITIVE,
    "weight_decay": (ValueError, lambda decay: decay >= 0, "0 or more"),
    "shrinkage": (ValueError, lambda rho: 0 <= rho < 1, "at least 0 and below 1"),
    "objective": _a_name_in(objectives.OBJECTIVES),
    "architecture": _a_name_in(ARCHITECTURES),
    "seed": (TypeError, lambda n: isinstance(n, numbers.Integral), "a whole number"),
    "dtype": (
        TypeError,
        lambda t: isinstance(t, torch.dtype) and t.is_floating_point,
        "a torch.dtype of real numbers, as torch.float64",
    ),
    "callback": (TypeError, callable, "a function of an event"),
}


class Settings(SimpleNamespace):
    """The arguments of ``ebflow.fit`` by name, checked; their types are those of its signature.

    The dtype of a flow replaces ``dtype``.

    Raises:
        ValueError: if a setting has no sensible value, or two contradict each other.
        TypeError: if a setting has another type.
    """

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(**arguments)
        for name, (error, is_right, expected) in RULES.items():
            value = getattr(self, name)
            default = value is None and name != "seed"
            if not default and not is_right(value):
                raise error(f"{name}: found {value!r}, expected {expected}")
        for name, beside, remedy in self._contradictions():
            raise ValueError(f"{name}: found {getattr(self, name)!r} with {beside}, {remedy}")
        check_device(self.device)
        if self.flow is not None:
            own = ("normalize", "shrinkage", "bounds") if self.flow.n_preprocessing else ()
            for name in ("options", "base", "architecture", *own):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: found with a flow, expected None: it has its own")
            self.dtype = self.flow.dtype

    def _contradictions(self) -> Iterator[tuple[str, str, str]]:
        """Yields settings that another one makes useless: name, the other one, the remedy."""
        for name in ("lr", "weight_decay"):
            if self.optimizer is not None and getattr(self, name) is not None:
                yield name, "an optimizer", "expected None: set it in the optimizer"
        if self.shrinkage is not None and self.normalize in PLAIN:
            beside = f"normalize={self.normalize!r}, which does not whiten"
            yield "shrinkage", beside, "expected None, or normalize='whiten'"
        if self.loss is not None and self.objective != OBJECTIVE:
            yield "objective", "a loss, which replaces it", "expected one of them"


def check_device(device: str | torch.device | None) -> None:
    """Raises ValueError if this machine does not have a device."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        message = f"device: found {device}, expected one of this machine, as cpu: {reason}"
        raise ValueError(message) from error


def bounds_by_index(
    bounds: Mapping[str | int, tuple[Any, Any]],
    columns: Columns,
    levels: int | None,
    what: str = "bounds",
) -> Bounds:
    """Returns the known bounds of columns by their indices.

    An index counts all columns of a table. Bounds of times may be dates, as text too. Integer data
    with ``levels`` have no other bounds. ``what`` starts the messages.

    Raises:
        TypeError: if the bounds are not a mapping.
        ValueError: if there is no such column, it is a category, or a pair is not (lower, upper).
    """
    if not isinstance(bounds, Mapping):
        raise TypeError(f"{what}: found {bounds!r}, expected {{column: (lower, upper)}}")
    if bounds and levels is not None:
        raise ValueError(f"{what}: found some of integer data, expected none: levels are theirs")
    names = dict(enumerate(columns.names)) | {n: c.name for c in columns for n in (c.name, c.key)}
    indices = {name: k for k, name in enumerate(columns.features)}
    for key in bounds:
        if names.get(key) not in indices:
            expected = ", ".join(indices)
            raise ValueError(f"{what}: found column {key!r}, expected one of {expected}")
    chosen = {indices[names[key]]: pair for key, pair in bounds.items()}
    return {k: _pair(columns.modelled[k], pair, what) for k, pair in chosen.items()}


def _pair(column: Column, pair: Any, what: str) -> tuple[float | None, ...]:  # noqa: ANN401
    """Returns the bounds of a column; raises ValueError if they are not (lower, upper)."""
    name = column.name
    if column.size:
        raise ValueError(f"{what}, column {name!r}: found a category, expected numbers")
    ends = tuple(pair) if isinstance(pair, Iterable) else ()
    if column.kind in TIMES:
        series = (read([end], name, what) for end in ends)
        ends = tuple(None if s.missing.all() else column.encode(s, what)[0] for s in series)
    finite = [end for end in ends if end is not None]
    are_numbers = all(isinstance(end, numbers.Real) and end == end for end in finite)
    if len(ends) != 2 or not are_numbers or (len(finite) == 2 and not finite[0] < finite[1]):
        raise ValueError(
            f"{what}, column {name}: found {pair!r}, expected (lower, upper), numbers or None, "
            "the lower one first"
        )
    return ends
