"""``ebflow run PIPELINE``: from options to results.

A caller may also do something else with the run, as ``ebflow submit`` does.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from ebflow.errors import BadInput
from pipelines.cli.options import RecipeOptions, RunOptions, typed
from pipelines.config import DataConfig, DensityConfig, Section, recipes
from pipelines.config.files import checked, dump, merge, overlaid, read
from pipelines.errors import StageFailed
from pipelines.reporting.terminal import terminal

if TYPE_CHECKING:
    from pipelines.engine.pipeline import Pipeline, Run


CarryOut = Callable[["Run", RunOptions, str], Mapping[str, Any]]
"""Carries out a run, given its options and a line about it, as :func:`execute` does."""

ABOUT = """Trains, evaluates and tracks an energy-based flow on a data set.

Options go over the configuration file, which goes over the recipe. Another objective or
architecture than theirs starts from its own defaults.
"""


def density(words: Sequence[str], carry_out: "CarryOut | None" = None) -> int:
    """Runs the density pipeline."""
    kind = RecipeOptions[typed(recipes.digits())]
    options = tyro.cli(kind, prog="ebflow run density", description=ABOUT, args=words)
    config, recipe = from_recipe(options)
    from pipelines.density.graph import DENSITY

    words, line = ("run", "density", *words), f"recipe {recipe} (--recipe chooses another)"
    start(DENSITY, config, options, words, line, carry_out, recipe)
    return 0


def from_recipe(options: RecipeOptions, **adapted: Any) -> tuple[DensityConfig, str]:  # noqa: ANN401
    """Returns the configuration, and the name of the recipe that it starts from.

    Arguments:
        options: The parsed options.
        adapted: Changes of the recipe; the file and the options go over them.

    Raises:
        BadInput: If there is no such file or data set, or a value is not allowed.
    """
    in_file = read(options.file)
    fields = merge(in_file, options.typed)
    try:
        data = checked(DataConfig, fields.get("data", {}))
    except BadInput:  # raised below, with the option or file that is wrong
        data = DataConfig()
    if options.recipe is None:
        objective = fields.get("objective")
        named = objective.get("name") if isinstance(objective, dict) else None
        recipe, name = recipes.for_source(data, named)
    else:
        recipe, name = recipes.RECIPES[options.recipe](), options.recipe
        if "source" in data.model_fields_set:
            recipe = recipes.on_source(recipe, data.source)
    return overlaid(recipe.changed(**adapted), in_file, options.file, options.typed), name


def study(words: Sequence[str], pipeline: "Pipeline", carry_out: "CarryOut | None" = None) -> int:
    """Runs a study."""
    kind = RunOptions[typed(pipeline.config())]
    about, prog = pipeline.config.__doc__, f"ebflow run {pipeline.name}"
    options = tyro.cli(kind, prog=prog, description=about, args=words)
    config = of_study(options, pipeline.config)
    words, line = ("run", pipeline.name, *words), config.name or config.experiment
    if hasattr(config, "scale"):
        line += f" at scale {config.scale}"
    start(pipeline, config, options, words, line, carry_out)
    return 0


def of_study(options: RunOptions, kind: type[Section]) -> Section:
    """Returns the configuration of a study; errors as in :func:`from_recipe`.

    Options go over the configuration file, which goes over the defaults of the scale.
    """
    in_file = read(options.file)
    fields = merge(in_file, options.typed)
    if in_file.get("scale", fields.get("scale")) != fields.get("scale"):
        found = f"{fields['scale']} with {options.file}, which has scale {in_file['scale']}"
        raise BadInput(option="--scale", found=found, expected="one scale")
    scale = {name: fields[name] for name in ("scale",) if name in fields}
    base = checked(kind, scale, options.file, options.typed)
    return overlaid(base, in_file, options.file, options.typed)


def start(
    pipeline: "Pipeline",
    config: Section,
    options: RunOptions,
    words: Sequence[str],
    line: str,
    carry_out: "CarryOut | None",
    recipe: str | None = None,
) -> Mapping[str, Any]:
    """Carries out the run of a command, by default here; returns its summary.

    Arguments:
        words: The words of the command, which start with ``run`` or ``tune``.
        line: A line about the run.
    """
    from pipelines.engine.pipeline import Retries, Run

    name = config.name or config.experiment
    folder = words[1] if words[0] == "run" else words[0]
    run = Run(
        pipeline=pipeline,
        name=name,
        config=config,
        output=options.output or Path("runs") / folder / name,
        command=shlex.join(["ebflow", *words]),
        recipe=recipe,
        force=options.force,
        retries=Retries(options.retries, options.retry_pause),
    )
    return (carry_out or execute)(run, options, line)


def execute(run: "Run", options: RunOptions, line: str) -> Mapping[str, Any]:
    """Runs a pipeline here, or prints its plan, after a line about it.

    Returns:
        The summary; nothing after a dry run.
    """
    from pipelines.engine import runner
    from pipelines.reporting.renderers import show

    inputs, console = runner.check(run), terminal()
    console.print(line)
    if options.dry_run:
        planned = runner.plan(run, inputs)
        if any(status != "cached" for status in planned.values()):
            run.pipeline.examine(run.config)
        console.print(dump(run.config), soft_wrap=True)
        for stage, status in planned.items():
            console.print(f"{stage:<10} {status}")
        return {}
    try:
        summary = runner.execute(run, inputs, console)
    except StageFailed as error:
        error.log = runner.log_file(run)
        raise
    show(console, summary)
    return summary
