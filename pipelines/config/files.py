"""Configurations as dictionaries and YAML files, and the errors of their values."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from reprlib import repr as short_repr
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ebflow.errors import BadInput
from pipelines.config.section import Section

Configuration = TypeVar("Configuration", bound=Section)

NOTHING: Mapping[str, Any] = MappingProxyType({})

# By section, the option that decides which other options there are. In the place of an error,
# pydantic names that option's value after the section.
TAGS = {"objective": "name", "model": "architecture"}

# Types that pydantic names in the place of an error, behind a field that may have either.
VARIANTS = ("int", "float")

# What is expected, by the types of pydantic's errors.
EXPECTED = {
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    "dict_type": "a mapping",
    "extra_forbidden": "no such option (--help lists all)",
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    **dict.fromkeys(("int_from_float", "int_parsing", "int_type"), "a whole number"),
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "missing": "a pair",  # of bounds: all other fields have defaults
    **dict.fromkeys(("model_attributes_type", "model_type"), "a mapping of options"),
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', a letter or a digit first",
    "string_type": "text",
    "too_long": "at most {max_length}",
    "too_short": "at least {min_length}",
    "tuple_type": "a list",
    "union_tag_invalid": "a {discriminator} of {expected_tags}",
}

# Errors of PyYAML for files that are not YAML, or hold no plain values.
NO_YAML = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError,
           ValueError)  # fmt: skip


def dump(config: Section) -> str:
    """Returns a configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read(path: Path | None) -> dict[str, Any]:
    """Returns the mapping in a YAML file, which is empty without a file.

    Raises:
        BadInput: If the file cannot be read, or is no mapping in YAML.
    """
    if path is None:
        return {}
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        fields = loader.get_single_data()
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", file=path) from None
    except NO_YAML as error:
        raise BadInput(f"not YAML ({error})", file=path) from None
    if not isinstance(fields, dict):
        raise BadInput(file=path, found=type(fields).__name__, expected="a mapping of sections")
    return fields


class _Loader(yaml.SafeLoader):
    """Loads plain values; a key that is there twice is an error.

    1:4 is a text. In YAML 1.1 it is 64, a number of minutes.
    """

    yaml_implicit_resolvers = {
        first: [("tag:yaml.org,2002:str", re.compile(r"\d+:\d+$")), *resolvers]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(str(key.value) for key, _ in node.value)
        for name, count in counts.items():
            if count > 1:
                line = f"the key {name} is there twice"
                raise yaml.MarkedYAMLError(problem=line, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def merge(base: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries with the values of ``fields`` in place of the base's.

    Another objective or architecture than the base's has none of the base's options.
    """
    merged = dict(base)
    for name, value in fields.items():
        before = base.get(name)
        if not isinstance(value, Mapping) or before is None:
            merged[name] = value
        elif isinstance(before, Mapping):  # else an error, which options must not hide
            tag = TAGS.get(name)
            other = tag in value and value[tag] != before.get(tag, value[tag])
            merged[name] = merge({} if other else before, value)
    return merged


def overlaid(
    base: Configuration,
    in_file: Mapping[str, Any],
    file: Path | None = None,
    overrides: Mapping[str, Any] = NOTHING,
) -> Configuration:
    """Returns a configuration: typed options go over fields of a file, which go over the base.

    Raises:
        BadInput: At the first wrong value. It names the option if that was typed, else the file.
    """
    fields = merge(base.model_dump(), merge(in_file, overrides))
    return checked(type(base), fields, file, overrides)


def checked(
    kind: type[Configuration],
    fields: Mapping[str, Any],
    file: Path | None = None,
    overrides: Mapping[str, Any] = NOTHING,
) -> Configuration:
    """Returns the configuration that has these fields; errors as in :func:`overlaid`."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise bad_input(error, file, overrides) from None


def bad_input(
    error: ValidationError, file: Path | None = None, overrides: Mapping[str, Any] = NOTHING
) -> BadInput:
    """Returns the first error of a configuration, as the error of an option or of a file's key."""
    # If a field may have either of the VARIANTS, the error of "float" follows that of "int".
    first = next(e for e in error.errors(include_url=False) if e["loc"][-1:] != ("int",))
    cause, location = first.get("ctx", {}).get("error"), first["loc"]
    names = [
        str(part)
        for before, part in pairwise((None, *location))
        if before not in TAGS and part not in VARIANTS and not isinstance(part, int)
    ][:2]  # a section and its field: keys inside a value are no options
    if isinstance(cause, BadInput):
        problem = cause
        names += cause.option.split(".")
    elif first["type"] == "extra_forbidden" and {*location[-3:-2]} & TAGS.keys():
        found = f"{short_repr(first['input'])}, which {location[-2]} does not have"
        problem = BadInput(found=found, expected="no such option")
    else:
        problem = BadInput(found=short_repr(first["input"]), expected=expected(first))
    name = ".".join(names)
    if file and not _has(overrides, names):
        return replace(problem, file=file, option=name)
    return replace(problem, option=f"--{name.replace('_', '-')}")


def expected(error: Mapping[str, Any]) -> str:
    """Returns what was expected in place of a value, from an error of pydantic's."""
    if text := EXPECTED.get(error["type"]):
        return text.format(**error.get("ctx", {}))
    return error["msg"].removeprefix("Input should be ")


def _has(fields: object, names: Sequence[str]) -> bool:
    """Returns True if nested dictionaries have a value of a field that is no section."""
    for name in names:
        if not isinstance(fields, Mapping) or name not in fields:
            return False
        fields = fields[name]
    return not isinstance(fields, Mapping)
