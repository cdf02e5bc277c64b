"""What a search leaves: the folder of a run, its MLflow run, and the table printed."""

__all__ = ["conclude", "describe", "log", "publish", "show"]

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ebflow.data.schema import Manifest
from pipelines import notes, titles
from pipelines.engine import Artefact
from pipelines.method import method
from pipelines.pipeline import Description
from pipelines.tracking import StageRun
from tuning.config import TuneConfig
from tuning.records import BASE
from tuning.verdict import Interval

KEPT = ("config", "params")
"""Parts of a record that are long, and are left to ``trials.json``."""

Artefacts = Sequence[Artefact]
"""Of prepare, search and verdict."""


def describe(config: TuneConfig) -> Description:
    """Returns what is searched over, and what the search begins from."""
    base, search = config.base, config.search
    data = Path(base.data.source).stem
    return Description(
        parts=(
            *([data] if data not in config.name else []),
            " ".join(dict.fromkeys([titles.loss(base), *search.objectives])),
            f"{search.trials} trials",
        ),
        about=f"A search over {', '.join(search.over)} on **{data}**, from: {method(base)}.",
        tags={"ebflow.data": data, "ebflow.objective": base.objective.name},
    )


def conclude(summary: Mapping[str, Any]) -> str:
    """Returns the verdict, and the settings that were trained again."""
    heading = ("", "selection NLL", "test NLL")
    lines = [(name, *told) for name, *told, _ in _lines(summary)]
    return f"{summary['verdict']}\n\n{notes.table(heading, lines)}"


def publish(config: TuneConfig, value: Artefacts, folder: Path) -> dict[str, Any]:
    """Copies the verdict's files into a folder; returns its numbers and the trials."""
    decided = value[-1].path
    for name in ("best.yaml", "report.html", "trials.json"):
        shutil.copy(decided / name, folder)
    shutil.copytree(decided / "figures", folder / "figures")
    trials = json.loads((decided / "trials.json").read_text())
    return {
        **json.loads((decided / "numbers.json").read_text()),
        "tried": [{k: v for k, v in trial.items() if k not in KEPT} for trial in trials],
    }


def log(config: TuneConfig, value: Artefacts, folder: Path, run: StageRun) -> None:
    """Logs parameters, data set, the verdict's numbers, figures, page and files."""
    run.log_params(config.model_dump())
    run.log_input(Manifest.load(value[0].path), "training")
    numbers = json.loads((value[-1].path / "numbers.json").read_text())
    run.log_metrics(_metrics(numbers))
    run.set_tags({"ebflow.verdict": numbers["verdict"]})
    run.log_artifacts(folder / "figures", "figures")
    for name in ("best.yaml", "report.html", "trials.json"):
        run.log_artifacts(folder / name)


def _metrics(numbers: Mapping[str, Any]) -> dict[str, float]:
    told = {"search/seconds": numbers["seconds"], "search/cpu_busy": numbers["cpu_busy"]}
    if numbers["gain"] is not None:
        told["study/gain"] = numbers["gain"]["mean"]
    for setting in numbers["settings"]:
        name = {numbers["winner"]: "winner", BASE: "default"}.get(setting["number"])
        if name is not None and not setting["lost"]:
            told[f"test/nll/{name}"] = setting["means"]["test"]["mean"]
            told[f"select/nll/{name}"] = setting["means"]["select"]["mean"]
    return told


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the settings that were trained again, the verdict, and where everything is."""
    console.print(_table(summary))
    tried = summary["tried"]
    states = [trial["state"] for trial in tried]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines = {
        "verdict": summary["verdict"],
        "trials": f"{len(tried)}: {counts}; {summary['seconds']:.0f} s, "
        f"{summary['cpu_busy']:.0%} of the cores' time busy",
        "stages": ", ".join(f"{stage} {fate}" for stage, fate in summary["stages"].items()),
        "best": f"{summary['best']} (ebflow run density --config {summary['best']})",
        "figures": summary["figures"],
        "report": summary["report"],
        "to look": "ebflow ui",
    }
    for name, text in lines.items():
        console.print(f"{name:<8} {text}", highlight=False, soft_wrap=True)


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"{summary['name']}: the best trials, trained again", title_justify="left",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip
    table.add_column("")
    table.add_column("selection NLL", justify="right", no_wrap=True)
    table.add_column("test NLL", justify="right", no_wrap=True)
    table.add_column("differs from the default in")
    for line in _lines(summary):
        table.add_row(*line)
    return table


def _lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yields for each setting its name, its means, and what it changes; the winner has a star."""
    changes = {trial["number"]: trial["changes"] for trial in summary["tried"]}
    for setting in summary["settings"]:
        number = setting["number"]
        label = "default" if number == BASE else f"trial {number}"
        chosen = " *" if number == summary["winner"] else ""
        told = ", ".join(f"{name} {_text(value)}" for name, value in changes[number].items())
        yield label + chosen, *_means(setting), told


def _means(setting: Mapping[str, Any]) -> tuple[str, str]:
    if setting["lost"]:
        return "diverged", ""
    return tuple(str(Interval(**setting["means"][split])) for split in ("select", "test"))


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
