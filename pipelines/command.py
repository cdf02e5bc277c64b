"""``ebflow run density``: from words to results, and the table that the user sees."""

__all__ = ["run"]

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.config import dump
from pipelines.faults import StageFailed
from pipelines.parsing import parse_density


def run(words: Sequence[str]) -> int:
    """Runs the density pipeline."""
    options = parse_density(words)
    from pipelines import runner

    run = runner.Run(
        config=options.config,
        output=options.output or Path("runs/density") / options.config.name,
        command=shlex.join(["ebflow", "run", "density", *words]),
        force=options.force,
    )
    source = runner.check(run)
    console = Console()
    if options.dry_run:
        console.print(dump(run.config), highlight=False)
        for stage, fate in runner.plan(run, source).items():
            console.print(f"{stage:<9} {fate}", highlight=False)
        return 0
    try:
        summary = runner.execute(run, source, console)
    except StageFailed as error:
        error.log = runner.log_file(run)
        raise
    _show(console, summary)
    return 0


def _show(console: Console, summary: dict[str, Any]) -> None:
    nll, gaussian = summary["test/nll"], summary["baseline/gaussian_nll"]
    table = Table(title=f"{summary['name']}: density on the test split", title_justify="left")
    table.add_column("")
    table.add_column("NLL (nats)", justify="right")
    table.add_column("bits/dim", justify="right")
    flow = (f"{nll:.2f} ± {summary['test/nll_se']:.2f}", f"{summary['test/bpd']:.3f}")
    table.add_row("flow", *flow)
    table.add_row(
        "full-covariance Gaussian", f"{gaussian:.2f}", f"{summary['baseline/gaussian_bpd']:.3f}"
    )
    table.add_row("difference", f"{nll - gaussian:+.2f}", "")
    console.print(table)
    steps, seconds = summary["train/steps"], summary["time/train_s"]
    lines = {
        "training": f"{summary['verdict']}; {summary['train/steps_per_s']:.0f} steps/s "
        f"({steps} steps in {seconds:.1f} s; best at step {summary['train/best_step']})",
        "outside step": f"{summary['time/share_outside_step']:.1%} of the training loop",
        "stages": ", ".join(f"{stage} {fate}" for stage, fate in summary["stages"].items()),
        "checkpoint": summary["checkpoint"],
        "figures": summary["figures"],
        "report": summary["report"],
        "to look": "ebflow ui",
    }
    for name, text in lines.items():
        console.print(f"{name:<13} {text}", highlight=False, soft_wrap=True)
