"""What the study leaves: the folder of a run, its MLflow run, and the tables printed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.engine import Artefact
from pipelines.engine.pipeline import Description
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.table import COLUMNS, Column
from pipelines.reporting import claims, runs

if TYPE_CHECKING:
    from pipelines.tracking import StageRun


def describe(config: AlignmentConfig) -> Description:
    """Returns data and scale."""
    data = Path(config.data.source).stem
    return Description(
        parts=(*([data] if data not in config.name else []), f"models of scale {config.scale}"),
        about=f"What the input-gradients of classifiers of **{data}** are, with regularisers and "
        "without: their logits as log-densities.",
        tags={"ebflow.data": data, "ebflow.scale": config.scale},
    )


def publish(config: AlignmentConfig, value: Artefact, folder: Path) -> dict[str, Any]:
    """Copies page and figures into a folder; returns models, claims and the reference."""
    runs.publish(value.path, folder)
    return json.loads((value.path / "study.json").read_text())


def log(config: AlignmentConfig, value: Artefact, folder: Path, run: "StageRun") -> None:
    """Logs the parameters, every model's numbers, the page and the figures."""
    run.log_params(config.model_dump())
    study = json.loads((value.path / "study.json").read_text())
    for model in study["models"]:
        means = {name: found["value"] for name, found in model["metrics"].items()}
        known = {name: mean for name, mean in means.items() if mean is not None}
        run.log_metrics({f"study/{model['model']}/{_name(k)}": v for k, v in known.items()})
    run.log_metrics({f"study/{k}": found["value"] for k, found in study["reference"].items()})
    runs.log(folder, run)


def _name(metric: str) -> str:
    return metric.replace(" ", "_")


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the models, the claims, and where everything is."""
    console.print(_models(summary["models"]))
    claims.show(console, claims.Conclusion.read(summary))
    quality = {name: found["value"] for name, found in summary["reference"].items()}
    right = quality.get("reference/accuracy")
    lines = {
        "reference": f"{quality['reference/log_density']:.3f} nats a dimension on test points"
        + ("" if right is None else f", Bayes accuracy {right:.3f}"),
    }
    for model in summary["models"]:
        remarks = [*filter(None, [model["diagnosis"]]), *model["warnings"]]
        lines |= {model["model"]: "; ".join(remarks)} if remarks else {}
    runs.show(console, summary, lines)


def _models(models: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    brief = [column for column in COLUMNS if column.brief]
    for column in brief:
        table.add_column(column.heading, justify="right", min_width=8)
    for model in models:
        table.add_row(model["model"], *(_text(column, model["metrics"]) for column in brief))
    return table


def _text(column: Column, metrics: Mapping[str, Any]) -> str:
    value = metrics.get(column.metric, {}).get("value")
    return "" if value is None else f"{value:.{column.digits}f}"
