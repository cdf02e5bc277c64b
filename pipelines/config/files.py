"""Configurations as YAML files, and what is wrong with one in one line."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ebflow.errors import BadInput
from pipelines.config import DensityConfig, Section, yaml_files
from pipelines.config.section import NAMED
from pipelines.config.yaml_files import shown

Configuration = TypeVar("Configuration", bound=Section)

MOST_CHARACTERS = 60
"""Of a key that a message shows as it is."""


def dump(config: Section) -> str:
    """Returns the configuration as YAML that :func:`load` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load(path: Path, base: Configuration) -> Configuration:
    """Reads a YAML file; what it leaves out is taken from ``base``, if its objective uses it.

    Raises:
        BadInput: If it cannot be read, is not a mapping, or a key or value is not allowed.
    """
    found = yaml_files.read(path)
    _check_keys(path, found, type(base), "")
    merged = merge(for_objective(base, _objective(found)).model_dump(), found)
    try:
        return type(base).model_validate(merged)
    except ValidationError as error:
        raise BadInput(explain(error, prefix=f"{path}, key ", root=type(base))) from None


def for_objective(base: Configuration, name: str | None) -> Configuration:
    """Returns what to start from if ``name`` is to be the objective: without others' options."""
    if name is None:
        return base
    return base.changed(objective=base.objective.kept_by(name))


def _objective(found: dict[str, Any]) -> str | None:
    return found.get("objective", {}).get("name")


def peek(path: Path) -> dict[str, Any]:
    """Returns what a YAML file says of data and :func:`load` may refuse; errors as there."""
    data = yaml_files.read(path).get("data")
    return data if isinstance(data, dict) else {}


def _check_keys(path: Path, found: dict[str, Any], section: type[Section], prefix: str) -> None:
    for key, value in found.items():
        field = section.model_fields.get(key)
        if field is None:
            raise BadInput(f"{path}: unknown key {prefix}{_named(key)}{_similar(key, section)}")
        inner = field.annotation
        if not _is_section(inner):
            continue
        if not isinstance(value, dict):
            raise BadInput(f"{path}, key {prefix}{key}: found {shown(value)}, expected a mapping")
        _check_keys(path, value, inner, f"{prefix}{key}.")


def _named(key: object) -> str:
    plain = isinstance(key, str) and key.isidentifier() and len(key) <= MOST_CHARACTERS
    return key if plain else shown(key)


def _similar(key: object, section: type[Section]) -> str:
    near = difflib.get_close_matches(_named(key), section.model_fields, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def merge(base: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Returns nested fields with those of ``found`` in place of the base's."""
    merged = dict(base)
    for key, value in found.items():
        inner = base.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, dict) else value
    return merged


def explain(error: ValidationError, *, prefix: str, root: type[Section] = DensityConfig) -> str:
    """Returns the first problem as one line: where, what was found, what was expected.

    Arguments:
        error: What pydantic found.
        prefix: Goes before the dotted name of the field: ``FILE, key ``, or ``--`` for options,
            which are spelled as such.
        root: The configuration whose sections the options have in front of them.
    """
    first = error.errors(include_url=False)[0]
    where = ".".join(_names(first["loc"], error.title, root))
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        name, _, rest = text.partition(":")
        where, text = ".".join(filter(None, [where, name])), rest.strip()
    else:
        named = first["type"] == "string_pattern_mismatch"
        text = f"found {shown(first['input'])}, {_expected(NAMED if named else text)}"
    return f"{prefix}{where.replace('_', '-') if prefix == '--' else where}: {text}"


def _expected(message: str) -> str:
    return "expected " + message.removeprefix("Input should ").removeprefix("be ")


def _names(location: tuple[int | str, ...], title: str, root: type[Section]) -> Iterator[str]:
    section: Any = root
    inside = (n for n, f in root.model_fields.items() if _title(f.annotation) == title)
    for name in (*inside, *location):
        if not _is_section(section):
            return
        yield str(name)
        field = section.model_fields.get(str(name))
        section = field.annotation if field else None


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _title(annotation: object) -> str | None:
    """Returns what pydantic calls a section in its errors."""
    return annotation.__name__ if _is_section(annotation) else None
