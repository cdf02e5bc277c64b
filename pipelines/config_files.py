"""Configurations as YAML files, and what is wrong with one in one line."""

__all__ = ["dump", "explain", "for_objective", "load", "merge", "peek"]

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ebflow.errors import BadInput
from pipelines.config import DensityConfig, Section
from pipelines.spelling import spelled

Configuration = TypeVar("Configuration", bound=Section)


def dump(config: Section) -> str:
    """Returns the configuration as YAML that :func:`load` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load(path: Path, base: Configuration) -> Configuration:
    """Reads a YAML file; what it leaves out is taken from ``base``, if its objective uses it.

    Raises:
        BadInput: If it cannot be read, is not a mapping, or a key or value is not allowed.
    """
    found = _mapping(path)
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
    return base.model_copy(update={"objective": base.objective.kept_by(name)})


def _objective(found: dict[str, Any]) -> str | None:
    return found.get("objective", {}).get("name")


def peek(path: Path) -> str | None:
    """Returns the data source that a YAML file names, if it does; errors as in :func:`load`."""
    data = _mapping(path).get("data")
    source = data.get("source") if isinstance(data, dict) else None
    return source if isinstance(source, str) else None


def _mapping(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: found bytes that are not UTF-8, expected YAML") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not YAML ({_where(error)})") from None
    if not isinstance(found, dict):
        raise BadInput(f"{path}: found {type(found).__name__}, expected a mapping of sections")
    return found


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or "unreadable"
    return what if mark is None else f"line {mark.line + 1}: {what}"


def _check_keys(path: Path, found: dict[str, Any], section: type[Section], prefix: str) -> None:
    for key, value in found.items():
        field = section.model_fields.get(key)
        if field is None:
            raise BadInput(f"{path}: unknown key {prefix}{key}{_similar(key, section)}")
        inner = field.annotation
        if not _is_section(inner):
            continue
        if not isinstance(value, dict):
            raise BadInput(f"{path}, key {prefix}{key}: found {value!r}, expected a mapping")
        _check_keys(path, value, inner, f"{prefix}{key}.")


def _similar(key: object, section: type[Section]) -> str:
    near = difflib.get_close_matches(str(key), section.model_fields, n=1)
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
        text = f"found {first['input']!r}, {_expected(text)}"
    if prefix == "--":
        return spelled(f"--{where.replace('_', '-')}: {text}")
    return f"{prefix}{where}: {text}"


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
