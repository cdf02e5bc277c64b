"""The command line: ``ebflow run | ui | data``.

Modules that import torch, Ray or MLflow are imported when a command needs them.
"""

__all__ = ["main"]

import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ebflow.errors import BadInput
from pipelines import environment
from pipelines.faults import StageFailed

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 (failed), 2 (bad input) or 130 (Ctrl-C)."""
    words = list(sys.argv[1:] if words is None else words)
    environment.prepare()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _dispatch(words)
    except BadInput as error:
        return _end(BAD_INPUT, str(error))
    except StageFailed as error:
        again = shlex.join(["ebflow", *words])
        return _end(FAILED, f"{error} (log: {error.log}; once mended, go on with: {again})")
    except KeyboardInterrupt:
        again = shlex.join(["ebflow", *words])
        return _end(INTERRUPTED, f"interrupted; to go on from where it stopped: {again}")


def _end(code: int, line: str) -> int:
    print(f"ebflow: {' '.join(line.split())}", file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    for count in (2, 1):
        command = COMMANDS.get(" ".join(words[:count]))
        if command is not None:
            return command.run(words[count:])
    if not words or {"-h", "--help"} & set(words):
        print(_usage(words))
        return 0
    found = " ".join(words[:2])
    raise BadInput(f"found command {found!r}, expected one of {', '.join(COMMANDS)}")


def _usage(words: Sequence[str]) -> str:
    group = [name for name in COMMANDS if words and name.split()[0] == words[0]] or list(COMMANDS)
    lines = [f"  ebflow {name:<12} {COMMANDS[name].help}" for name in group]
    return "\n".join(["usage: ebflow COMMAND [OPTIONS]", "", *lines, "", HINT])


def run_density(words: Sequence[str]) -> int:
    """Runs the density pipeline."""
    from pipelines.config import dump
    from pipelines.parsing import parse_density

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


@dataclass(frozen=True)
class Ui:
    """Serves MLflow on this machine (127.0.0.1) until Ctrl-C."""

    port: int = 5000
    """port, 1 … 65535"""


def run_ui(words: Sequence[str]) -> int:
    """Serves MLflow until Ctrl-C."""
    from pipelines.parsing import parse

    port = parse(Ui, words, "ebflow ui").port
    _check_port(port)
    from pipelines import store, tracking

    if not (store.home() / "mlflow.db").exists():
        raise BadInput(f"{store.home()}: found no runs, expected those of `ebflow run density`")
    print(f"MLflow at http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    server = tracking.serve(port)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise BadInput(f"--port: found {port}, expected 1 … 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BadInput(f"--port: found {port}, which is taken ({error.strerror})") from None


@dataclass(frozen=True)
class DataList:
    """Lists the named data sets."""


def list_data(words: Sequence[str]) -> int:
    """Lists the named data sets."""
    from pipelines.parsing import parse

    parse(DataList, words, "ebflow data list")
    from ebflow.data.sources import describe

    table = Table("name", "rows", "shape", "what", "from where")
    for source in describe():
        table.add_row(*source.values())
    console = Console()
    console.print(table)
    console.print("or the path of a .parquet file, or of a folder of them", highlight=False)
    return 0


@dataclass(frozen=True)
class Command:
    """A command: what it does, and its one line of help."""

    run: Callable[[Sequence[str]], int]
    help: str


COMMANDS = {
    "run density": Command(run_density, "prepare, train, evaluate and report a flow on data"),
    "ui": Command(run_ui, "look at all runs in MLflow"),
    "data list": Command(list_data, "list the named data sets"),
}
HINT = "`ebflow COMMAND --help` lists the options of a command."
