"""``ebflow run PIPELINE``: from the words of a command to the results of its run.

A configuration's options are parsed to a dictionary of those that were typed: they go over the
configuration file, which goes over a recipe's defaults. ``ebflow submit`` and ``ebflow tune`` ask
for runs in the same way.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypedDict, TypeVar, Union

import tyro
from pydantic.fields import FieldInfo

from ebflow.errors import BadInput
from pipelines.cli.parsing import parsed
from pipelines.cluster.environment import again
from pipelines.config import DataConfig, DensityConfig, Section, recipes
from pipelines.config.files import TAGS, checked, dump, merge, overlaid, read
from pipelines.config.section import kinds
from pipelines.config.training import TrainConfig
from pipelines.errors import StageFailed
from pipelines.reporting.terminal import terminal

if TYPE_CHECKING:
    from pipelines.engine.pipeline import Pipeline, Run

Overrides = TypeVar("Overrides")

ABOUT = """Trains, evaluates and tracks an energy-based flow on a data set.

An option overrides the file of --config, which overrides the recipe. If you choose another
objective or architecture, it starts from its own defaults.
"""


@dataclass(frozen=True, kw_only=True)
class RunOptions(Generic[Overrides]):
    """The options of every run."""

    output: Path | None = None
    """folder for the results; None: runs/PIPELINE/NAME"""
    force: bool = False
    """run every stage again"""
    resume: bool = False
    """refuse to start anew if data, options or code changed since the interruption"""
    retries: int = 2
    """times that a stage is run again after a failure of its disk, process or node"""
    dry_run: bool = False
    """print the configuration and which stages would run; write nothing"""
    file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML file to start from, such as the config.yaml of an earlier run"""
    overrides: Annotated[Overrides, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(RunOptions[Overrides]):
    """The options of a run that starts from a recipe of the density pipeline."""

    recipe: Literal[*recipes.RECIPES] | None = None
    """defaults to start from; None: those for the data. The defaults below are those of digits"""


@dataclass(frozen=True)
class Request:
    """A run that a command asks for, the options of the command, and a line about the run."""

    run: "Run"
    options: RunOptions
    line: str

    @classmethod
    def of(
        cls,
        pipeline: "Pipeline",
        config: Section,
        options: RunOptions,
        words: Sequence[str],
        line: str,
        recipe: str | None = None,
    ) -> "Request":
        """Returns the request for a pipeline; ``words`` start with ``run`` or ``tune``."""
        from pipelines.engine.pipeline import Run

        if options.retries < 0:
            expected = "a number of at least 0"
            raise BadInput(option="--retries", found=options.retries, expected=expected)
        name = config.name or config.experiment
        folder = words[1] if words[0] == "run" else words[0]
        run = Run(
            pipeline=pipeline,
            name=name,
            config=config,
            output=options.output or Path("runs") / folder / name,
            command=again(words),
            recipe=recipe,
            force=options.force,
            resume=options.resume,
            retries=options.retries,
        )
        return cls(run, options, line)


def density(words: Sequence[str]) -> Request:
    """Returns the run of the density pipeline that the words ask for."""
    kind = RecipeOptions[option_types(recipes.digits())]
    options = parsed(kind, "ebflow run density", words, description=ABOUT)
    config, recipe = from_recipe(options)
    from pipelines.density.graph import DENSITY

    line = f"recipe {recipe} (--recipe chooses another)"
    return Request.of(DENSITY, config, options, ("run", "density", *words), line, recipe)


def from_recipe(options: RecipeOptions, **adapted: Any) -> tuple[DensityConfig, str]:  # noqa: ANN401
    """Returns the configuration, and the name of the recipe that it starts from.

    Arguments:
        adapted: Changes of the recipe; the file and the options go over them.

    Raises:
        BadInput: If there is no such file or data set, or a value is not allowed.
    """
    in_file = read(options.file)
    fields = merge(in_file, options.overrides)
    try:
        data = checked(DataConfig, fields.get("data", {}))
        train = checked(TrainConfig, fields.get("train", {}))
    except BadInput:  # raised below, with the option or file that is wrong
        data, train = DataConfig(), TrainConfig()
    if options.recipe is None:
        objective, architecture = (_tag(fields, *tag) for tag in TAGS.items())
        recipe, name = recipes.for_source(data, objective, architecture, train.max_seconds)
        if fields.get("model"):  # the user has chosen
            recipe = recipe.changed(rival=None)
    else:
        recipe, name = recipes.RECIPES[options.recipe](), options.recipe
        if "source" in data.model_fields_set:
            recipe = recipes.on_source(recipe, data.source)
    return overlaid(recipe.changed(**adapted), in_file, options.file, options.overrides), name


def _tag(fields: Mapping[str, Any], section: str, name: str) -> str | None:
    """Returns the name in a section of several kinds; None: it has none."""
    value = fields.get(section)
    return value.get(name) if isinstance(value, Mapping) else None


def study(words: Sequence[str], pipeline: "Pipeline") -> Request:
    """Returns the run of a study that the words ask for.

    Options go over the configuration file, which goes over the defaults of the scale.
    """
    kind = RunOptions[option_types(pipeline.config())]
    about, prog = pipeline.config.__doc__, f"ebflow run {pipeline.name}"
    options = parsed(kind, prog, words, description=about)
    in_file = read(options.file)
    fields = merge(in_file, options.overrides)
    if in_file.get("scale", fields.get("scale")) != fields.get("scale"):
        found = f"{fields['scale']} with {options.file}, which has scale {in_file['scale']}"
        raise BadInput(option="--scale", found=found, expected="one scale")
    scale = {name: fields[name] for name in ("scale",) if name in fields}
    base = checked(pipeline.config, scale, options.file, options.overrides)
    config = overlaid(base, in_file, options.file, options.overrides)
    line = config.name or config.experiment
    line += f" at scale {config.scale}" if hasattr(config, "scale") else ""
    return Request.of(pipeline, config, options, ("run", pipeline.name, *words), line)


def execute(request: Request) -> None:
    """Runs a pipeline on this machine, or prints its plan, after a line about it."""
    from pipelines.engine import runner
    from pipelines.reporting.result import show

    run = request.run
    inputs, console = runner.check(run), terminal()
    console.print(request.line)
    if request.options.dry_run:
        planned = runner.plan(run, inputs)
        if any(status != "cached" for status in planned.values()):
            run.pipeline.examine(run.config)
        console.print(dump(run.config), soft_wrap=True)
        for stage, status in planned.items():
            console.print(f"{stage:<10} {status}", soft_wrap=True)
        return
    try:
        summary = runner.execute(run, inputs, console)
    except StageFailed as error:
        error.log = runner.log_file(run)
        raise
    show(console, summary)


def option_types(defaults: Section) -> Any:  # noqa: ANN401
    """Returns the type of a dictionary that has the typed options of a configuration.

    ``--help`` shows the given defaults.
    """
    options = {}
    for name, field in type(defaults).model_fields.items():
        default = getattr(defaults, name)
        if kinds(field):
            options[name] = _of_union(field, default)
        elif isinstance(default, Section):
            options[name] = option_types(default)
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
    help_text = tyro.conf.arg(help=text, help_behavior_hint=f"(default: {default})")
    return Annotated[field.annotation, *field.metadata, help_text]
