"""The options of ``ebflow run``, ``submit`` and ``tune``, as types that tyro parses.

A configuration's options are parsed to a dictionary of those that were typed: they go over the
configuration file, which goes over a recipe's defaults.
"""

from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar, Union

import tyro
from pydantic.fields import FieldInfo

from pipelines.config.recipes import RECIPES
from pipelines.config.section import Section, kinds

Typed = TypeVar("Typed")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Generic[Typed]):
    """The options of every run."""

    output: Path | None = None
    """folder for the results; None: runs/PIPELINE/NAME"""
    force: bool = False
    """run every stage again"""
    retries: int = 2
    """times that a stage is run again after a failure of a disk, the network or a node"""
    retry_pause: float = 5.0
    """seconds before the first of them; each following pause is twice as long"""
    dry_run: bool = False
    """print the configuration and which stages would run; write nothing"""
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML file to start from, such as the config.yaml of an earlier run"""
    typed: Annotated[Typed, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(RunOptions[Typed]):
    """The options of a run that starts from a recipe of the density pipeline."""

    recipe: Literal[*RECIPES] | None = None
    """named configuration to start from; None: the one for the source: digits for digits, images
    or large for images, tabular or wide for columns of numbers, by their size; the defaults below
    are those of digits"""


def typed(defaults: Section) -> Any:  # noqa: ANN401
    """Returns the type of a dictionary that has the typed options of a configuration.

    ``--help`` shows the given defaults.
    """
    options = {}
    for name, field in type(defaults).model_fields.items():
        default = getattr(defaults, name)
        if kinds(field):
            options[name] = _of_union(field, default)
        elif isinstance(default, Section):
            options[name] = typed(default)
        else:
            options[name] = _option(field, default)
    return TypedDict(type(defaults).__name__, options, total=False)  # type: ignore[operator]


def _of_union(union: FieldInfo, default: Section) -> Any:  # noqa: ANN401
    """Returns the type of a dictionary that has the options of all classes of a union.

    pydantic refuses options of other classes than the chosen one.
    """
    users: dict[str, dict[str, FieldInfo]] = {}
    for user, kind in kinds(union).items():
        for name, field in kind.model_fields.items():
            users.setdefault(name, {})[user] = field
    options = {}
    for name, fields in users.items():
        merged = copy(next(iter(fields.values())))
        merged.annotation = Union[*(field.annotation for field in fields.values())]
        if name == union.discriminator:
            merged.description = union.description
        elif len(fields) < len(kinds(union)):
            merged.description = _by_class(fields)
        options[name] = _option(merged, getattr(default, name, merged.default))
    return TypedDict(type(default).__name__, options, total=False)  # type: ignore[operator]


def _by_class(fields: dict[str, FieldInfo]) -> str:
    """Returns the descriptions of an option, each behind the classes that have it."""
    users: dict[str | None, list[str]] = {}
    for user, field in fields.items():
        users.setdefault(field.description, []).append(user)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in users.items())


def _option(field: FieldInfo, default: object) -> Any:  # noqa: ANN401
    text = " ".join((field.description or "").split())
    shown = tyro.conf.arg(help=text, help_behavior_hint=f"(default: {default})")
    return Annotated[field.annotation, *field.metadata, shown]
