"""Configurations as dictionaries and YAML files, and the errors of their values."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ebflow.errors import HALF, BadInput
from pipelines.config.section import Section, kinds

Configuration = TypeVar("Configuration", bound=Section)

SHORT = Repr()
"""Shows wrong values; a few aliases in YAML can name a billion of them."""

SHORT.maxlevel, SHORT.maxstring, SHORT.maxother = 2, HALF, HALF

NO_YAML = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    ValueError,
)
"""Errors of PyYAML for files that are not YAML, or hold no plain values."""


def dump(config: Section) -> str:
    """Returns a configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read(path: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file.

    Raises:
        BadInput: If the file cannot be read, or is no mapping in YAML.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", file=path) from None
    except NO_YAML as error:
        raise BadInput(f"not YAML ({error})", file=path) from None
    if not isinstance(fields, dict):
        raise BadInput(file=path, found=type(fields).__name__, expected="a mapping of sections")
    return fields


def checked(
    kind: type[Configuration], fields: Mapping[str, Any], file: Path | None = None
) -> Configuration:
    """Returns the configuration that has these fields, which come from the options or a file.

    Raises:
        BadInput: At the first wrong field.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise bad_input(error, kind, file) from None


def overlaid(
    base: Configuration, fields: Mapping[str, Any], file: Path | None = None
) -> Configuration:
    """Returns a configuration with other values of some fields; errors as in :func:`checked`.

    If they name another objective or architecture, it takes only those options of the base that
    it has.
    """
    own = base.model_dump()
    for name, field in type(base).model_fields.items():
        inner, classes = fields.get(name), kinds(field)
        chosen = inner.get(field.discriminator) if isinstance(inner, Mapping) else None
        if isinstance(chosen, str) and chosen in classes:
            options = classes[chosen].model_fields
            own[name] = {key: own[name][key] for key in own[name] if key in options}
    return checked(type(base), merge(own, fields), file)


def merge(base: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries with the values of ``fields`` in place of the base's."""
    merged = dict(base)
    for key, value in fields.items():
        inner = base.get(key)
        nested = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(inner, value) if nested else value
    return merged


def bad_input(error: ValidationError, kind: type[Section], file: Path | None = None) -> BadInput:
    """Returns the first error of a configuration of a kind, as the error of an option or a key."""
    first = error.errors(include_url=False)[0]
    context, names = first.get("ctx", {}), list(_names(kind, first["loc"]))
    if first["type"] == "union_tag_invalid":
        names.append(context["discriminator"].strip("'"))
        problem = BadInput(found=SHORT.repr(context["tag"]), expected=context["expected_tags"])
    elif first["type"] == "extra_forbidden" and len(names) < len(first["loc"]):  # in a union
        found = f"{SHORT.repr(first['input'])}, which {first['loc'][-2]} does not have"
        problem = BadInput(found=found, expected="no such option")
    elif isinstance(context.get("error"), BadInput):
        problem = context["error"]
    else:
        problem = BadInput(found=SHORT.repr(first["input"]), hint=first["msg"])
    name = ".".join([*names, *filter(None, [problem.option])])
    typed = f"--{name.replace('_', '-')}" if name else None
    return replace(problem, file=file, option=name if file else typed)


def _names(kind: type[Section], location: tuple[int | str, ...]) -> Iterator[str]:
    """Yields the names of a field and of its sections, without the parts of its value."""
    parts = iter(location)
    for name in parts:
        yield str(name)
        field = kind.model_fields.get(str(name))
        if field is None:
            return
        kind = field.annotation
        if kinds(field):  # the next part is the name of the class
            kind = kinds(field).get(str(next(parts, None)))
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            return
