"""What the density pipeline leaves: the folder of a run, its MLflow run, and the table printed."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.config import DensityConfig
from pipelines.data.manifest import Manifest
from pipelines.data.messages import listed
from pipelines.density import RESULTS
from pipelines.density.likelihoods import HEADING, cells, classified, lines
from pipelines.engine import Artefact
from pipelines.engine.pipeline import Description
from pipelines.inference import REFERENCE
from pipelines.reporting.method import method, short_loss, short_net
from pipelines.reporting.terminal import show_run, table
from pipelines.tracking import metrics_log, notes

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun

EXAMPLES = 4

NAMED = 8
"""Most columns that a line names; ``summary.json`` has all."""

TEST, HELD = ("test/nll", "test/"), ("best/", "select/")
"""Beginnings of the numbers that are metrics of a run, in order: of test and of other rows."""

Artefacts = Sequence[Artefact]
"""Of prepare, preprocess, train, evaluate and report."""


def describe(config: DensityConfig) -> Description:
    """Returns loss, net and data (if the name does not say them), and how it is trained."""
    data, net = Path(config.data.source).stem, short_net(config.model)
    return Description(
        parts=(*([data] if data not in config.name else []), short_loss(config), net),
        about=f"An energy-based flow of **{data}**, trained by {method(config)}.",
        tags={
            "ebflow.data": data,
            "ebflow.net": net,
            "ebflow.objective": config.objective.name,
            "ebflow.seed": str(config.seed),
        },
    )


def conclude(summary: Mapping[str, Any]) -> str:
    """Returns warnings, the likelihoods on the test split, and how training ended."""
    ended = f"Training {summary['verdict']}; best at step {summary['train/best_step']}."
    warned = "".join(f"Warning: {text}\n\n" for text in summary["warnings"])
    return f"{warned}{notes.table(HEADING, cells(summary))}\n\nTest split. {ended}"


def publish(config: DensityConfig, value: Artefacts, folder: Path) -> dict[str, Any]:
    """Copies checkpoint, figures and page into a folder; returns the numbers."""
    data, _, trained, evaluated, reported = (artefact.path for artefact in value)
    shutil.copytree(trained / "checkpoint", folder / "checkpoint")
    shutil.copy(evaluated / REFERENCE, folder / "checkpoint")
    shutil.copy(reported / "report.html", folder)
    shutil.copytree(reported / "figures", folder / "figures")
    found = json.loads((reported / RESULTS).read_text())
    return {
        **found.pop("numbers"),
        **found,
        "method": method(config),
        "splits": Manifest.load(data).assignment,
        "seeds": {"data": config.data.seed, "training": config.seed},
    }


def log(config: DensityConfig, value: Artefacts, folder: Path, run: "StageRun") -> None:
    """Logs data set, results, curves, and the model with its checkpoint.

    A run's page lists metrics in the order in which they came, and draws a chart of each: the
    likelihood of test rows and the curves of validation come first; numbers beside results and
    curves are parameters. The training's run has the checkpoint by itself.
    """
    from pipelines.data.dataset import Dataset
    from pipelines.inference.models import Model
    from pipelines.inference.tables import examples
    from pipelines.tracking.models import log_model

    data, _, trained, _, reported = (artefact.path for artefact in value)
    dataset, model = Dataset(data), Model(config.name, folder / "checkpoint")
    run.log_input(dataset.manifest, "training")
    numbers = json.loads((reported / RESULTS).read_text())["numbers"]
    rows, _ = metrics_log.read(trained / metrics_log.FILE)
    for some, kind in ((TEST, "validate"), (HELD, "log")):
        run.log_metrics({n: numbers[n] for first in some for n in numbers if n.startswith(first)})
        run.log_rows(metrics_log.curve(rows, kind))
    run.log_params({n: v for n, v in numbers.items() if not n.startswith((*TEST, *HELD))})
    batch = next(dataset.split("test").batches(EXAMPLES))
    log_model(run, model.folder, examples(model, *batch))


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the likelihoods, and where everything is."""
    title = f"{summary['name']}: density on the test split"
    console.print(table(HEADING, cells(summary), title=title))
    steps, seconds = summary["train/steps"], summary["time/train_s"]
    found = {
        **{f"warning {i}": text for i, text in enumerate(summary["warnings"], 1)},
        **_classes(summary),
        "splits": summary["splits"],
        **_columns(summary["columns"]),
        "trained by": summary["method"],
        "training": f"{summary['verdict']}; {summary['train/steps_per_s']:.0f} steps/s "
        f"({steps} steps in {seconds:.1f} s; best at step {summary['train/best_step']})",
        "outside step": f"{summary['time/share_outside_step']:.1%} of the training loop",
    }
    show_run(console, summary, found, checkpoint=summary["checkpoint"])


def _classes(summary: Mapping[str, Any]) -> dict[str, str]:
    """Returns the line on the flow's classifier, if it makes one."""
    if "test/accuracy" not in summary:
        return {}
    accuracy, loss, error = classified(lines(summary)[0], summary)
    told = f"accuracy {accuracy}, log loss {loss} nats, calibration error {error}"
    return {"classifier": f"{told}, by Bayes' rule"}


def _columns(steps: Mapping[str, Any]) -> dict[str, str]:
    """Returns the treatment of a table's columns, a line for each kind."""
    grids = [f"{name} ({step:g})" for name, step in steps.get("grids", {}).items()]
    levels = [f"{name} ({len(some)})" for name, some in steps.get("levels", {}).items()]
    atoms = [
        f"{name} ({', '.join(f'{value:g}' for value in some)})"
        for name, some in steps.get("atoms", {}).items()
    ]
    lines = {
        "on grids": (grids, "dequantized by noise of their step"),
        "of levels": (levels, "dequantized by noise up to the next level"),
        "with atoms": (atoms, "repeated values, which have probabilities instead of densities"),
        "bounded": (list(steps.get("bounds", {})), "mapped to the line by a logit or logarithm"),
        "tails": (steps.get("tails", []), "transformed by Johnson's S_U"),
    }
    return {name: f"{listed(some, NAMED)}: {done}" for name, (some, done) in lines.items() if some}
