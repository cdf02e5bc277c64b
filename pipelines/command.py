"""``ebflow run PIPELINE``: from words to results, and what the user sees of them."""

__all__ = ["density", "gradient_alignment", "paper"]

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.config_files import dump
from pipelines.faults import StageFailed
from pipelines.parsing import Alignment, Paper, Running, parse, parse_density

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


def gradient_alignment(words: Sequence[str]) -> int:
    """Runs the study of gradient alignment."""
    options = parse(Alignment, words, "ebflow run gradient-alignment")
    from pipelines.gradient_alignment import ALIGNMENT
    from pipelines.runner import Run

    config = options.config
    run = Run(
        pipeline=ALIGNMENT,
        name=config.name,
        config=config,
        output=options.output or Path("runs/gradient-alignment") / config.name,
        command=shlex.join(["ebflow", "run", "gradient-alignment", *words]),
        force=options.force,
    )
    return _run(run, options, f"models of scale {config.scale}")


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
