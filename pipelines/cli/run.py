"""``ebflow run PIPELINE``: from words to results, and what the user sees of them.

What is done with the run that the words ask for may also be to send it elsewhere (``submit.py``).
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli.parsing import (
    Alignment,
    Paper,
    Running,
    parse_complexity,
    parse_density,
    parse_pipeline,
)
from pipelines.config.files import dump
from pipelines.errors import StageFailed
from pipelines.reporting.terminal import terminal

if TYPE_CHECKING:
    from pipelines.engine.pipeline import Pipeline
    from pipelines.engine.runner import Run


CarryOut = Callable[["Run", Running, str], Mapping[str, Any]]
"""What is done with a run, from it, its options and a line on what was chosen: as `carry_out`."""


def carry_out(run: "Run", options: Running, line: str) -> Mapping[str, Any]:
    """Runs a pipeline here, or tells what it would run, after a line on what was chosen.

    Returns:
        The summary; nothing where there is none, as of a dry run.
    """
    from pipelines.engine import runner

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
    run.pipeline.show(console, summary)
    return summary


def density(words: Sequence[str], carry_out: CarryOut = carry_out) -> int:
    """Runs the density pipeline."""
    options = parse_density(words)
    from pipelines.density.graph import DENSITY

    config = options.config
    run = _run_of(DENSITY, config.name, options, words, recipe=options.recipe)
    summary = carry_out(run, options, f"recipe {options.recipe} (--recipe chooses another)")
    if summary and options.register:
        _register(summary["mlflow_run_id"], options.register, options.alias)
    return 0


def _register(run_id: str, name: str, alias: str | None) -> None:
    from pipelines.tracking.registry import register

    registered = register(run_id, name, alias)
    terminal().print(f"registered    {registered}", soft_wrap=True)


def paper(words: Sequence[str], carry_out: CarryOut = carry_out) -> int:
    """Runs an experiment of the paper."""
    options = parse_pipeline(Paper, words, "ebflow run paper")
    from pipelines.paper.graph import PAPER

    config = options.config
    name = config.name or config.experiment
    run = _run_of(PAPER, name, options, words)
    carry_out(run, options, f"experiment {config.experiment} at scale {config.scale}")
    return 0


def gradient_alignment(words: Sequence[str], carry_out: CarryOut = carry_out) -> int:
    """Runs the study of gradient alignment."""
    options = parse_pipeline(Alignment, words, "ebflow run gradient-alignment")
    from pipelines.gradient_alignment.graph import ALIGNMENT

    config = options.config
    run = _run_of(ALIGNMENT, config.name, options, words)
    carry_out(run, options, f"models of scale {config.scale}")
    return 0


def sample_complexity(words: Sequence[str], carry_out: CarryOut = carry_out) -> int:
    """Runs the study of sample complexity."""
    options = parse_complexity(words)
    from pipelines.sample_complexity.graph import SAMPLE_COMPLEXITY

    config = options.config
    run = _run_of(SAMPLE_COMPLEXITY, config.name, options, words)
    carry_out(run, options, f"scale {config.scale}")
    return 0


def _run_of(
    pipeline: "Pipeline",
    name: str,
    options: Running,
    words: Sequence[str],
    **more: Any,  # noqa: ANN401
) -> "Run":
    """Returns the run of a pipeline that the words of ``ebflow run`` ask for."""
    from pipelines.engine import Retries
    from pipelines.engine.runner import Run

    return Run(
        pipeline=pipeline,
        name=name,
        config=options.config,
        output=options.output or Path("runs") / pipeline.name / name,
        command=shlex.join(["ebflow", "run", pipeline.name, *words]),
        force=options.force,
        retries=Retries(options.retries, options.retry_pause),
        **more,
    )
