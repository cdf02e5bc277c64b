"""``ebflow run PIPELINE``: from words to results, and what the user sees of them.

What is done with the run that the words ask for may also be to send it elsewhere (``submit.py``).
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from pipelines.cli.parsing import Running, parse_density, parse_study
from pipelines.cli.studies import Study
from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.errors import StageFailed
from pipelines.reporting.terminal import terminal

if TYPE_CHECKING:
    from pipelines.engine.pipeline import Pipeline, Run


CarryOut = Callable[["Run", Running, str], Mapping[str, Any]]
"""What is done with a run, from it, its options and a line on what was chosen: as `carry_out`."""


def carry_out(run: "Run", options: Running, line: str) -> Mapping[str, Any]:
    """Runs a pipeline here, or tells what it would run, after a line on what was chosen.

    Returns:
        The summary; nothing where there is none, as of a dry run.
    """
    from pipelines.engine import runner
    from pipelines.engine.checks import check

    inputs, console = check(run), terminal()
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
    run.pipeline.show(console, summary)
    return summary


def density(words: Sequence[str], carry_out: CarryOut = carry_out) -> int:
    """Runs the density pipeline."""
    options = parse_density(words)
    from pipelines.density.graph import DENSITY

    words = ("run", "density", *words)
    run = run_of(DENSITY, options.config, options, words, recipe=options.recipe)
    summary = carry_out(run, options, f"recipe {options.recipe} (--recipe chooses another)")
    if summary and options.register:
        _register(summary["mlflow_run_id"], options.register, options.alias)
    return 0


def _register(run_id: str, name: str, alias: str | None) -> None:
    from pipelines.tracking.models import register

    registered = register(run_id, name, alias)
    terminal().print(f"registered    {registered}", soft_wrap=True)


def study(words: Sequence[str], study: Study, carry_out: CarryOut = carry_out) -> int:
    """Runs a study."""
    options = parse_study(words, study)
    config = options.config
    name = config.name or config.experiment
    run = run_of(resolve_name(study.graph), config, options, ("run", study.name, *words), name)
    carry_out(run, options, f"{name} at scale {config.scale}")
    return 0


def run_of(
    pipeline: "Pipeline",
    config: Section,
    options: Running,
    words: Sequence[str],
    name: str | None = None,
    recipe: str | None = None,
) -> "Run":
    """Returns the run that a command asks for, whose words begin with ``run`` or ``tune``."""
    from pipelines.engine import Retries
    from pipelines.engine.pipeline import Run

    name, folder = name or config.name, words[1] if words[0] == "run" else words[0]
    return Run(
        pipeline=pipeline,
        name=name,
        config=config,
        output=options.output or Path("runs") / folder / name,
        command=shlex.join(["ebflow", *words]),
        recipe=recipe,
        force=options.force,
        retries=Retries(options.retries, options.retry_pause),
    )
