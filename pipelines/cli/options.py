"""The options of ``ebflow run``, and the configuration that they make.

tyro parses the command line once. A configuration's options are parsed to a dictionary of those
that were typed. They go over the configuration file, which goes over a recipe's defaults.
"""

from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar, Union

import tyro
from pydantic.fields import FieldInfo

from ebflow.errors import BadInput
from pipelines.config import recipes
from pipelines.config.data import DataConfig
from pipelines.config.files import checked, merge, overlaid, read
from pipelines.config.objective import OBJECTIVES
from pipelines.config.section import Section, kinds
from pipelines.config.training import DensityConfig

RECIPE = (
    f"named configuration to start from ({', '.join(recipes.RECIPES)}); by default the one for "
    "the source: digits for digits, images or large for images, tabular or wide for columns of "
    "numbers, by their size; the defaults below are those of digits"
)

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

    def in_file(self) -> dict[str, Any]:
        """Returns the fields of the configuration file."""
        return read(self.file) if self.file else {}


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(RunOptions[Typed]):
    """The options of a run that starts from a recipe of the density pipeline."""

    recipe: Annotated[str | None, tyro.conf.arg(help=RECIPE)] = None


def typed(defaults: Section) -> Any:  # noqa: ANN401
    """Returns the type of a dictionary that has the typed options of a configuration.

    ``--help`` shows the given defaults.
    """
    kind = type(defaults)
    options = {n: _option(f, getattr(defaults, n)) for n, f in kind.model_fields.items()}
    return TypedDict(kind.__name__, options, total=False)  # type: ignore[operator]


def _option(field: FieldInfo, default: object) -> Any:  # noqa: ANN401
    if kinds(field):
        return _of_union(field, default)
    if isinstance(default, Section):
        return typed(default)
    return _described(field, field.description, default)


def _of_union(field: FieldInfo, default: Section) -> Any:  # noqa: ANN401
    """Returns the type of a dictionary that has the options of all classes of a union.

    pydantic refuses options of other classes than the chosen one.
    """
    tag, classes = field.discriminator, kinds(field)
    hint = f"(default: {getattr(default, tag)})"
    named = tyro.conf.arg(help=field.description, help_behavior_hint=hint)
    options = {tag: Annotated[Literal[*classes], named]}
    for name in dict.fromkeys(name for kind in classes.values() for name in kind.model_fields):
        fields = {
            user: kind.model_fields[name]
            for user, kind in classes.items()
            if name in kind.model_fields
        }
        first = next(iter(fields.values()))
        shown = getattr(default, name, first.default)
        merged = copy(first)
        merged.annotation = Union[*(own.annotation for own in fields.values())]
        options.setdefault(name, _described(merged, _text(fields, classes), shown))
    return TypedDict(type(default).__name__, options, total=False)  # type: ignore[operator]


def _text(fields: Mapping[str, FieldInfo], classes: Collection[str]) -> str:
    """Returns the descriptions of an option, each with the names of the classes that have it."""
    users: dict[str, list[str]] = {}
    for user, own in fields.items():
        users.setdefault(str(own.description), []).append(user)
    if len(users) == 1 and len(fields) == len(classes):
        return next(iter(users))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in users.items())


def _described(field: FieldInfo, text: str | None, default: object) -> Any:  # noqa: ANN401
    shown = tyro.conf.arg(help=text, help_behavior_hint=f"(default: {default})")
    return Annotated[field.annotation, *field.metadata, shown]


def from_recipe(
    options: RecipeOptions, adapt: Callable[[DensityConfig], DensityConfig] = lambda recipe: recipe
) -> tuple[DensityConfig, str]:
    """Returns the configuration, and the name of the recipe that it starts from.

    Arguments:
        options: The parsed options.
        adapt: Changes the recipe, before a file or an option does.

    Raises:
        BadInput: If there is no such recipe, file or data set, or a value is not allowed.
    """
    in_file = options.in_file()
    recipe, name = _recipe(merge(in_file, options.typed), options.recipe)
    return overlaid(adapt(recipe), in_file, options.file, options.typed), name


def _recipe(fields: dict[str, Any], name: str | None) -> tuple[DensityConfig, str]:
    """Returns the recipe of a name, or else the one for the data of a configuration's fields."""
    try:
        data = checked(DataConfig, fields.get("data", {}))
    except BadInput:  # raised later, with the option or file that is wrong
        data = DataConfig()
    if name is None:
        objective = fields.get("objective")
        named = str(objective.get("name")) if isinstance(objective, dict) else None
        return recipes.for_source(data, named if named in OBJECTIVES else None)
    own = "source" not in data.model_fields_set
    return recipes.named(name, None if own else data.source), name


def of_study(options: RunOptions, kind: type[Section]) -> Section:
    """Returns the configuration of a study; errors as in :func:`from_recipe`.

    Options go over the configuration file, which goes over the defaults of the scale.
    """
    in_file = options.in_file()
    fields = merge(in_file, options.typed)
    if in_file.get("scale", fields.get("scale")) != fields.get("scale"):
        raise BadInput(
            option="--scale",
            found=f"{fields['scale']} with {options.file}, which has scale {in_file['scale']}",
            expected="one scale",
            hint="Leave out --config, whose values would replace those of the scale",
        )
    file = None if "scale" in options.typed else options.file
    base = checked(kind, {name: fields[name] for name in ("scale",) if name in fields}, file)
    return overlaid(base, in_file, options.file, options.typed)
