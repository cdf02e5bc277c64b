"""``ebflow run PIPELINE``: from words to results, and what the user sees of them."""

__all__ = ["density", "paper", "sample_complexity"]

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.config_files import dump
from pipelines.faults import StageFailed
from pipelines.parsing import Paper, Running, parse, parse_complexity, parse_density

if TYPE_CHECKING:
    from pipelines.runner import Run


def density(words: Sequence[str]) -> int:
    """Runs the density pipeline."""
    options = parse_density(words)
    from pipelines.density import DENSITY
    from pipelines.runner import Run

    config = options.config
    run = Run(
        pipeline=DENSITY,
        name=config.name,
        config=config,
        output=options.output or Path("runs/density") / config.name,
        command=shlex.join(["ebflow", "run", "density", *words]),
        workers=config.cluster.workers,
        force=options.force,
    )
    return _run(run, options, f"recipe {options.recipe} (--recipe chooses another)")


def paper(words: Sequence[str]) -> int:
    """Runs an experiment of the paper."""
    options = parse(Paper, words, "ebflow run paper")
    from pipelines.paper import PAPER
    from pipelines.runner import Run

    config = options.config
    name = config.name or config.experiment
    run = Run(
        pipeline=PAPER,
        name=name,
        config=config,
        output=options.output or Path("runs/paper") / name,
        command=shlex.join(["ebflow", "run", "paper", *words]),
        workers=config.cluster.workers,
        force=options.force,
    )
    return _run(run, options, f"experiment {config.experiment} at scale {config.scale}")


def sample_complexity(words: Sequence[str]) -> int:
    """Runs the study of sample complexity."""
    options = parse_complexity(words)
    from pipelines.runner import Run
    from pipelines.sample_complexity import SAMPLE_COMPLEXITY

    config = options.config
    run = Run(
        pipeline=SAMPLE_COMPLEXITY,
        name=config.name,
        config=config,
        output=options.output or Path("runs/sample-complexity") / config.name,
        command=shlex.join(["ebflow", "run", "sample-complexity", *words]),
        force=options.force,
    )
    return _run(run, options, f"scale {config.scale}")


def _run(run: "Run", options: Running, told: str) -> int:
    from pipelines import runner

    inputs, console = runner.check(run), Console()
    console.print(told, highlight=False)
    if options.dry_run:
        console.print(dump(run.config), highlight=False)
        for stage, fate in runner.plan(run, inputs).items():
            console.print(f"{stage:<9} {fate}", highlight=False)
        return 0
    try:
        summary = runner.execute(run, inputs, console)
    except StageFailed as error:
        error.log = runner.log_file(run)
        raise
    run.pipeline.show(console, summary)
    return 0
