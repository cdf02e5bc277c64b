"""What the study leaves: the folder of a run, its MLflow run, and the tables printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.engine.pipeline import Description
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.over_seeds import COLUMNS
from pipelines.reporting import claims
from pipelines.reporting.terminal import show_run, table

BRIEF = ("accuracy", "gradient", "A1", "A1/over gaussian", "A1/over flow", "A3", "PP/own/raw")
"""The numbers of models that a terminal shows."""


def describe(config: AlignmentConfig) -> Description:
    """Returns data and scale."""
    data = Path(config.data.source).stem
    return Description(
        parts=(*([data] if data not in config.name else []), f"models of scale {config.scale}"),
        about=f"What the input-gradients of classifiers of **{data}** are, with regularizers and "
        "without: their logits as log-densities.",
        tags={"ebflow.data": data, "ebflow.scale": config.scale},
    )


def metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Returns every model's numbers, and the reference's."""
    found = {
        f"{model['model']}/{name.replace(' ', '_')}": one["value"]
        for model in summary["models"]
        for name, one in model["metrics"].items()
    }
    found |= {name: one["value"] for name, one in summary["reference"].items()}
    return {f"study/{name}": mean for name, mean in found.items() if mean is not None}


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the models, the claims, and where everything is."""
    brief = [column for column in COLUMNS if column.metric in BRIEF]
    rows = []
    for model in summary["models"]:
        means = (model["metrics"].get(one.metric, {}).get("value") for one in brief)
        pairs = zip(means, brief, strict=True)
        texts = ("" if mean is None else f"{mean:.{one.digits}f}" for mean, one in pairs)
        rows.append((model["model"], *texts))
    console.print(table(("model", *(column.heading for column in brief)), rows, wrap=True))
    claims.show(console, summary)
    told = {}
    for model in summary["models"]:
        remarks = [*filter(None, [model["diagnosis"]]), *model["warnings"]]
        told |= {model["model"]: "; ".join(remarks)} if remarks else {}
    show_run(console, summary, told)
