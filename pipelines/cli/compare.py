"""``ebflow compare``: what differs between runs, and one curve of all of them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from ebflow.errors import BadInput
from pipelines.cli.parsing import parse
from pipelines.reporting.terminal import table, terminal

if TYPE_CHECKING:
    from pipelines.tracking.reading import TrackedRun

SHOWN = re.compile(r"(test|study|baseline|best)/\w+|train/(steps|best_step)|time/total_s")
"""Final numbers that are told, metrics or parameters; the last values of curves are not."""


@dataclass(frozen=True)
class Compare:
    """Shows what differs between runs, and a curve of each in a figure."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """two runs or more: names, or the beginnings of ids, as `ebflow runs` shows them; a name means
    its newest run that finished"""
    metric: str = "val/nll"
    """metric of the figure"""
    output: Path = Path("runs/compare")
    """folder of the figure"""


def run(words: Sequence[str]) -> int:
    """Prints the tables and draws the figure."""
    options = parse(Compare, words, "ebflow compare")
    if len(options.runs) < 2:
        raise BadInput(f"found {' '.join(options.runs) or 'no run'}, expected two runs or more")
    from pipelines.reporting import overlay
    from pipelines.tracking import history, reaching

    with reaching():
        reader = history.opened()
        runs = [history.resolve(reader, word) for word in options.runs]
        history.known_metrics(runs, options.metric, "--metric")
        curves = [reader.points(found.id, options.metric) for found in runs]
    names = _names(runs)
    path = options.output / f"{options.metric.replace('/', '-')}.png"
    overlay.write(path, options.metric, dict(zip(names, curves, strict=True)))
    console = terminal()
    console.print(_differences("configuration", names, [_config(found) for found in runs], str))
    console.print(_differences("metric", names, [_final(found) for found in runs], _number))
    console.print(f"curves of {options.metric}: {path}", soft_wrap=True)
    return 0


def _names(runs: "Sequence[TrackedRun]") -> list[str]:
    """Returns short names; with the beginning of the id where several have the same."""
    from pipelines.tracking.history import label

    labels = [label(run) for run in runs]
    return [
        name if labels.count(name) == 1 else f"{name} {run.id[:6]}"
        for name, run in zip(labels, runs, strict=True)
    ]


def _config(run: "TrackedRun") -> dict[str, str]:
    """Returns parameters that are no numbers that came out."""
    return {name: value for name, value in run.params.items() if "/" not in name}


def _final(run: "TrackedRun") -> dict[str, float]:
    values = {**run.params, **run.metrics}
    return {name: float(value) for name, value in values.items() if SHOWN.fullmatch(name)}


def _number(value: float) -> str:
    return f"{value:.6g}"


def _differences(
    what: str,
    names: Sequence[str],
    found: Sequence[Mapping[str, object]],
    text: Callable[..., str],
) -> Table:
    """Returns what is not the same of all, in a line each."""
    keys = sorted({key for some in found for key in some})
    cells = {key: [text(some[key]) if key in some else "" for some in found] for key in keys}
    lines = [(key, *line) for key, line in cells.items() if len(set(line)) > 1]
    nothing = ("nothing differs", *[""] * len(names))
    return table((what, *names), lines or [nothing])
