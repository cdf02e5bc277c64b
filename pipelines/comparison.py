"""A table of cells beside published numbers: as a page, in the folder of a run, and printed."""

__all__ = ["TEMPLATE", "log", "page", "publish", "show"]

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.config import PaperConfig
from pipelines.config_files import dump
from pipelines.engine import Artefact
from pipelines.tracking import StageRun

TEMPLATE = Path(__file__).with_name("comparison.html.j2")

Rows = Sequence[Mapping[str, Any]]


def page(config: PaperConfig, rows: Rows) -> str:
    """Returns a self-contained HTML page."""
    loader = jinja2.FileSystemLoader(TEMPLATE.parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template(TEMPLATE.name)
    return template.render(config=config, rows=rows, text=dump(config))


def publish(config: PaperConfig, value: Artefact, folder: Path) -> dict[str, Any]:
    """Copies the page into a folder; returns the rows."""
    shutil.copy(value.path / "report.html", folder)
    return {"rows": json.loads((value.path / "rows.json").read_text())}


def log(config: PaperConfig, value: Artefact, folder: Path, run: StageRun) -> None:
    """Logs the parameters, every cell's likelihood, and the page."""
    run.log_params(config.model_dump())
    for row in json.loads((value.path / "rows.json").read_text()):
        name = "/".join(str(row[key]) for key in ("net", "settings", "objective", "seed"))
        run.log_metrics({f"test/nll/{name}": row["test/nll"]})
    run.log_artifacts(folder / "report.html")


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the table, and where everything is."""
    rows: Rows = summary["rows"]
    first = rows[0]
    title = (
        f"test NLL (nats): {first['data']}, scale {first['scale']}, {first['machine']}; "
        "published: MNIST, at the paper's length"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("net")
    table.add_column("settings")
    table.add_column("objective")
    for name in ("seed", "steps", "steps/s", "NLL", "published"):
        table.add_column(name, justify="right")
    table.add_row("", "", "Gaussian", "", "", "", f"{first['baseline/gaussian_nll']:.1f}", "")
    for row in rows:
        table.add_row(*_texts(row))
    console.print(table)
    console.print(f"stages   {_fates(summary)}", highlight=False)
    console.print(f"report   {summary['report']}", highlight=False, soft_wrap=True)
    console.print("to look  ebflow ui", highlight=False)


def _texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    published = "" if row["published/nll"] is None else f"{row['published/nll']:.1f}"
    names = tuple(row[key] for key in ("net", "settings", "objective"))
    rate = f"{row['train/steps_per_s']:.0f}"
    counts = (str(row["seed"]), str(row["train/steps"]), rate)
    return (*names, *counts, f"{row['test/nll']:.1f}", published)


def _fates(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{stage} {fate}" for stage, fate in summary["stages"].items())
