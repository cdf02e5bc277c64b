"""Configurations as dictionaries and YAML files, and the errors of their values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import Repr
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ebflow.errors import HALF, BadInput
from pipelines.config.section import Section, kinds

Configuration = TypeVar("Configuration", bound=Section)

NOTHING: Mapping[str, Any] = MappingProxyType({})

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
    base: Configuration,
    fields: Mapping[str, Any],
    file: Path | None = None,
    typed: Mapping[str, Any] = NOTHING,
) -> Configuration:
    """Returns a configuration with other values of some fields; errors as in :func:`checked`.

    Typed options go over the fields, which go over the base. If they choose another objective or
    architecture, it takes the options of the base that it has, if it allows their values. If
    typed options choose another one than the fields do, it takes the fields' options that it has.

    Arguments:
        base: The values of all other fields.
        fields: Nested fields, of a file if one is given.
        file: The file, which errors of its fields name.
        typed: Nested fields that were typed as options; errors of them name the options.
    """
    # Typed options must not hide that a file has something else in place of their section.
    typed = {
        name: value
        for name, value in typed.items()
        if not isinstance(value, Mapping) or (value and isinstance(fields.get(name, {}), Mapping))
    }
    own, over = base.model_dump(), merge(fields, typed)
    for name, field in type(base).model_fields.items():
        kind, before = _kind(field, over.get(name)), _kind(field, fields.get(name))
        if kind and kind is not type(getattr(base, name)):
            own[name] = {key: own[name][key] for key in own[name] if _allows(kind, key, own[name])}
        if kind and before and kind is not before:
            gone = before.model_fields.keys() - kind.model_fields.keys() - typed[name].keys()
            over[name] = {key: value for key, value in over[name].items() if key not in gone}
    try:
        return type(base).model_validate(merge(own, over))
    except ValidationError as error:
        raise bad_input(error, type(base), file, fields, typed) from None


def _kind(field: FieldInfo, section: object) -> type[Section] | None:
    """Returns the class that a section of a union names."""
    name = section.get(field.discriminator) if isinstance(section, Mapping) else None
    return kinds(field).get(name) if isinstance(name, str) else None


def _allows(kind: type[Section], name: str, options: Mapping[str, Any]) -> bool:
    """Returns True if a class has an option and allows its value."""
    try:
        kind.model_validate({name: options[name]})
    except ValidationError:
        return False
    return True


def merge(base: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries with the values of ``fields`` in place of the base's."""
    merged = dict(base)
    for key, value in fields.items():
        inner = base.get(key)
        nested = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(inner, value) if nested else value
    return merged


def bad_input(
    error: ValidationError,
    kind: type[Section],
    file: Path | None = None,
    in_file: Mapping[str, Any] = NOTHING,
    typed: Mapping[str, Any] = NOTHING,
) -> BadInput:
    """Returns the first error of a configuration of a kind, as the error of an option or a key.

    If options were typed, the error names the file only if the value is from the file.
    """
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
    names += problem.option.split(".") if problem.option else []
    if typed and (_has(typed, names) or not _has(in_file, names)):
        file = None
    name = ".".join(names)
    option = f"--{name.replace('_', '-')}" if name else None
    return replace(problem, file=file, option=name if file else option)


def _has(fields: object, names: Sequence[str]) -> bool:
    """Returns True if nested dictionaries have a value of a field."""
    for name in names:
        if not isinstance(fields, Mapping):
            break
        fields = {str(key): value for key, value in fields.items()}
        if name not in fields:
            return False
        fields = fields[name]
    return True


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
