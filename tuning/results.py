"""What a search leaves: the folder of a run, its MLflow run, and the table printed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.data.manifest import Manifest
from pipelines.engine import Artefact
from pipelines.engine.pipeline import Description
from pipelines.reporting.result import plus_minus
from pipelines.reporting.terminal import show_run, table
from pipelines.tracking import notes
from tuning.config import SPLITS, TuneConfig
from tuning.problems import problem
from tuning.records import BASE, label

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun

TEMPLATE = Path(__file__).with_name("search.html.j2")
"""Of the page."""

Artefacts = Sequence[Artefact]
"""Of prepare, search and verdict."""


def describe(config: TuneConfig) -> Description:
    """Returns what is searched over, and what the search begins from."""
    searched, search, data = problem(config), config.search, Path(config.base.data.source).stem
    label = searched.label(searched.base)
    labels = dict.fromkeys([label, *getattr(search, "objectives", ())])
    return Description(
        parts=(
            *([data] if data not in config.name else []),
            " ".join(labels),
            f"{search.trials} trials",
        ),
        about=f"A search over {', '.join(search.over)} on **{data}**, from: "
        f"{searched.method(searched.base)}.",
        tags={"ebflow.data": data, "ebflow.objective": label.split()[0]},
    )


def conclude(summary: Mapping[str, Any]) -> str:
    """Returns the verdict, and the settings that were trained again."""
    again = notes.table(_headings(summary), [line[:-1] for line in _lines(summary)])
    return f"{summary['verdict']}\n\n{again}"


def log(value: Artefacts, folder: Path, run: "StageRun") -> None:
    """Logs the data set."""
    run.log_input(Manifest.load(value[0].path), "training")


def metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Returns what the search took, gains, and the means of winner and default."""
    found = {"search/seconds": summary["seconds"], "search/cpus_busy": summary["cpus_busy"]}
    found |= {f"study/gain/{goal}": gain["value"] for goal, gain in summary["gains"].items()}
    for setting in summary["settings"]:
        name = {summary["winner"]: "winner", BASE: "default"}.get(setting["number"])
        if name is not None and not setting["lost"]:
            found |= {
                f"{split}/{goal}/{name}": mean["value"]
                for split, goals in setting["means"].items()
                for goal, mean in goals.items()
            }
    return found


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the settings that were trained again, the verdict, and where everything is."""
    title = f"{summary['name']}: the best trials, trained again"
    console.print(table(_headings(summary), [line[:-1] for line in _lines(summary)], title=title))
    differing = {name: f"differs in {keys}" for name, *_, keys in _lines(summary) if keys}
    tried = summary["tried"]
    states = [trial["state"] for trial in tried]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    told = {
        **differing,
        "verdict": summary["verdict"],
        "trials": f"{len(tried)}: {counts}; {summary['seconds']:.0f} s, "
        f"{summary['cpus_busy']:.1f} cores busy on average",
    }
    best = f"{summary['best']} ({summary['again']} {summary['best']})"
    show_run(console, summary, told, best=best)


def _headings(summary: Mapping[str, Any]) -> list[str]:
    goals = [goal["text"] for goal in summary["goals"]]
    return ["", *(f"{rows} {goal}" for rows in SPLITS.values() for goal in goals)]


def _lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yields for each setting its name, its means, and what it changes; the winner has a star."""
    tried = {trial["number"]: trial["changes"] for trial in summary["tried"]}
    for setting in summary["settings"]:
        number = setting["number"]
        chosen = " *" if number == summary["winner"] else ""
        yield label(number) + chosen, *means(setting, summary["goals"]), _text(tried[number])


def _text(changes: Mapping[str, Any]) -> str:
    texts = {k: f"{v:.3g}" if isinstance(v, float) else str(v) for k, v in changes.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def means(setting: Mapping[str, Any], goals: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the means of a setting as text: by split, and by goal."""
    if setting["lost"]:
        return ["diverged", *[""] * (len(SPLITS) * len(goals) - 1)]
    return [
        plus_minus(list(setting["means"][split][goal["name"]].values()), goal["digits"])
        for split in SPLITS
        for goal in goals
    ]
