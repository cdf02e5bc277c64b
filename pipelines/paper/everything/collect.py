"""From the results of all studies to one page: item, published, measured, verdict, command."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipelines.paper.config import PaperConfig
from pipelines.paper.everything.items import FAILS, HOLDS, OPEN, Item, items
from pipelines.paper.everything.studies import Study, studies
from pipelines.reporting.claims import Conclusion
from pipelines.reporting.page import machine
from pipelines.reporting.result import Drawn, Plot, Result, Table
from pipelines.tracking.run import StageRun

INTRO = (
    "Every method, table and figure of three papers, measured by the experiments of this project. "
    "E: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu, "
    "Kira, Lee, 2023), arXiv:2305.15267. G: Improved Sample Complexity Bounds for Diffusion Model "
    "Training (Gupta, Parulekar, Price, Xun, 2023), arXiv:2311.13745. S: Rethinking the Role of "
    "Gradient-Based Attribution Methods for Model Interpretability (Srinivas, Fleuret, 2020), "
    "arXiv:2006.09128. This is not the authors' code. Below scale full, published and measured "
    "numbers are of different data and lengths of training."
)

HEADINGS = ("item", "subject", "the paper shows", "measured", "verdict", "figure", "command")


def collect(config: PaperConfig, reports: Sequence[Path], *, run: StageRun) -> None:
    """Saves the page. The reports are those of the studies, in their order."""
    folders = dict(zip([study.name for study in studies(config)], reports, strict=True))
    known = {study.name: study for study in studies(config)}
    found = [_entry(item, known[item.study], folders[item.study]) for item in items([*known])]
    counts = Counter(entry["verdict"] for entry in found)
    numbers = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (HOLDS, FAILS, OPEN))
    lines = [tuple(entry[key] for key in KEYS) for entry in found]
    figures = {entry["figure"]: folders[entry["study"]] for entry in found if entry["figure"]}
    Result(
        title="Every item of the three papers",
        intro=INTRO,
        conclusion=Conclusion(findings=(f"Of {len(found)} items: {numbers}.",)),
        headline=Table(
            "Items",
            ("item", "subject", "verdict"),
            [(entry["id"], entry["subject"], entry["verdict"]) for entry in found],
            f"Scale {config.scale}, {machine()}.",
        ),
        sections=[
            Table("Items with their numbers", HEADINGS, lines),
            *(_plot(name, folder) for name, folder in figures.items()),
        ],
        metrics={"study/items": len(found), "study/items_that_hold": counts[HOLDS]},
        values={"items": found},
    ).save(config, run)


KEYS = ("id", "subject", "published", "measured", "verdict", "figure", "command")


def _entry(item: Item, study: Study, folder: Path) -> dict[str, str]:
    """Returns an item as in ``summary.json``."""
    summary = json.loads((folder / "summary.json").read_text())
    drawn = (folder / "figures" / f"{item.figure}.png").exists()
    figure = f"{study.name}: {item.figure}" if drawn else ""
    return item.entry(summary, study.command, figure)


def _plot(name: str, folder: Path) -> Plot:
    """Returns a figure of a study, which its report explains."""
    study, _, figure = name.partition(": ")
    path = folder / "figures" / f"{figure}.png"
    return Plot(name, Drawn(path), f"From the report of {study}.", name)
