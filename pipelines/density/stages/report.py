"""From all that was found to figures and a page."""

__all__ = ["report"]

import json
from pathlib import Path

from ebflow.checkpoint import load
from ebflow.data.loader import Dataset
from ebflow.randomness import generator
from pipelines.config import DensityConfig
from pipelines.config.files import dump
from pipelines.density import classifier
from pipelines.density.figures import figures, page
from pipelines.density.warnings import WARNINGS, doubts
from pipelines.tracking import StageRun
from pipelines.training import metrics_log

SAMPLES = 500


def report(
    config: DensityConfig,
    data: Path,
    trained: Path,
    evaluated: Path,
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes ``figures/*.png``, ``report.html``, ``numbers.json``, ``warnings.json``."""
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "testing")
    training = json.loads((trained / "training.json").read_text())
    numbers = training["metrics"] | json.loads((evaluated / "evaluation.json").read_text())
    told, _ = metrics_log.read(trained / metrics_log.FILE)
    x, context = next(dataset.split("test").batches(SAMPLES))
    density, draws = load(trained / "checkpoint")(context), generator(config.seed, "report")
    y = density.sample(() if density.batch_shape else len(x), draws)
    images = {}
    (output / "figures").mkdir()
    for name, figure in figures(told, numbers, dataset.manifest, x.numpy(), y.numpy()).items():
        images[name] = output / "figures" / f"{name}.png"
        figure.savefig(images[name])
    if (evaluated / classifier.FILE).exists():
        images["classes"] = output / "figures" / "classes.png"
        classifier.figure(evaluated / classifier.FILE).savefig(images["classes"])
    found = doubts(numbers, dataset.manifest)
    warned = [*training["warnings"], *found, *dataset.manifest.warnings]
    html = page(numbers, dataset.manifest, dump(config), training["verdict"], images, warned)
    (output / WARNINGS).write_text(json.dumps(warned, indent=1) + "\n")
    (output / "report.html").write_text(html)
    (output / "numbers.json").write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")
    run.log_artifacts(output)
