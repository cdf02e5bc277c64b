"""``ebflow run PIPELINE``: from words to results, and what the user sees of them.

What is done with a run that the words ask for may also be to send it elsewhere (``submit.py``).
"""

__all__ = ["CarryOut", "carry_out", "density", "paper"]

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.config_files import dump
from pipelines.faults import StageFailed
from pipelines.parsing import Paper, Running, parse_density, parse_pipeline

if TYPE_CHECKING:
    from pipelines.runner import Run


CarryOut = Callable[["Run", Running, str], int]
"""What is done with a run: from it, its options and a line on what was chosen to an exit code."""


def carry_out(run: "Run", options: Running, told: str) -> int:
    """Runs a pipeline here, or tells what it would run."""
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


def density(words: Sequence[str], carry_out: CarryOut = carry_out) -> int:
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
    return carry_out(run, options, f"recipe {options.recipe} (--recipe chooses another)")


def paper(words: Sequence[str], carry_out: CarryOut = carry_out) -> int:
    """Runs an experiment of the paper."""
    options = parse_pipeline(Paper, words, "ebflow run paper")
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
    return carry_out(run, options, f"experiment {config.experiment} at scale {config.scale}")
