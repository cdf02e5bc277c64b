"""Checks the spec of a flow that a checkpoint names, before anything of its sizes is made."""

__all__ = ["UNFIT", "check_spec"]

import math
from collections.abc import Callable, Container
from typing import Any

from .architectures import ARCHITECTURES
from .data.manifest import Rules, check
from .data.preprocessing import NORMALISE

SQUARE = ("dense", "multimodal")
"""Architectures of D×D matrices."""

UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What is raised where the parts of a checkpoint do not fit each other, or what takes them."""

Test = Callable[[Any], bool]


def check_spec(where: str, spec: dict[str, Any], elements: int) -> None:
    """Checks the keys, types and sizes of an architecture's spec.

    Sizes are bounded by the weights, so that a small file asks for little: there are D² of them at
    least where matrices are D×D, D elsewhere.

    Arguments:
        where: Names the spec in messages.
        spec: As in ``Flow.spec``, with a ``dtype``.
        elements: Numbers in the checkpoint's weights.

    Raises:
        BadInput: Naming the key, what was found, and what was expected.
    """
    front = {key: _FRONT[key] for key in _FRONT if key in spec}
    check(where, spec, _rules(elements) | front)
    width = math.prod(spec["shape"])
    if spec["architecture"] in SQUARE:
        check(where, {"weights": elements}, {"weights": _at_least(width**2)})
    if spec.get("preprocessing"):
        rules = {"width": (lambda v: type(v) is int and v == width, str(width)), **_PREPROCESSING}
        check(f"{where}, preprocessing", spec["preprocessing"], rules)
        if spec["preprocessing"]["normalise"] == "whiten":
            check(where, {"weights": elements}, {"weights": _at_least(width**2)})


def _rules(elements: int) -> Rules:
    sizes = _listed(_whole(1, elements))
    options = _mapped(_any_of(_whole(-1, elements), _finite, _text, _absent))
    return {
        "architecture": _one_of(ARCHITECTURES),
        "shape": (lambda v: sizes(v) and math.prod(v) <= elements, "the sizes of an example"),
        "options": (options, f"texts, and numbers of at most {elements}, those of the weights"),
        "dtype": _one_of(("float32", "float64")),
    }


def _at_least(least: int) -> tuple[Test, str]:
    return lambda value: value >= least, f"at least {least} of such a shape"


def _one_of(names: Container[str]) -> tuple[Test, str]:
    return lambda v: isinstance(v, str) and v in names, f"one of {', '.join(names)}"


def _whole(least: int, most: int) -> Test:
    return lambda value: isinstance(value, int) and least <= value <= most


def _any_of(*tests: Test) -> Test:
    return lambda value: any(test(value) for test in tests)


def _listed(test: Test) -> Test:
    return lambda value: isinstance(value, list) and bool(value) and all(map(test, value))


def _mapped(test: Test) -> Test:
    return lambda value: isinstance(value, dict) and all(map(test, value.values()))


def _finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _absent(value: object) -> bool:
    return value is None


def _flag(value: object) -> bool:
    return isinstance(value, bool)


_FRONT: Rules = {
    "preprocessing": (lambda v: v is None or isinstance(v, dict), "an object, or null"),
    "match_after": (_flag, "true or false"),
}

_PREPROCESSING: Rules = {
    "levels": (_any_of(_absent, _whole(2, 256)), "2 … 256, or null"),
    "margin": (_any_of(_absent, lambda v: _finite(v) and 0 < v < 0.5), "below 0.5, or null"),
    "scale": (lambda v: _finite(v) and v > 0, "a number above 0"),
    "extended": (_flag, "true or false"),
    "normalise": _one_of(NORMALISE),
}
