"""From all that was found to figures and a page."""

import json
from pathlib import Path

import numpy as np

from pipelines.config import DensityConfig
from pipelines.config.files import dump
from pipelines.data.dataset import Dataset
from pipelines.density import RESULTS, classifier, fit
from pipelines.density.figures import curves
from pipelines.density.page import page
from pipelines.density.samples import samples
from pipelines.density.stages.evaluate import LOG_PROBS
from pipelines.density.warnings import doubts
from pipelines.reporting.style import draw
from pipelines.store.files import write_json
from pipelines.tracking import metrics_log
from pipelines.tracking.run import StageRun
from pipelines.training.architectures import load
from pipelines.training.preprocessing import COLUMNS


def report(
    config: DensityConfig,
    data: Path,
    preprocessed: Path,
    trained: Path,
    evaluated: Path,
    *,
    run: StageRun,
) -> None:
    """Writes the page, its figures, and what it says: numbers, warnings, distances."""
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    manifest = dataset.manifest
    run.log_input(manifest, "testing")
    training = json.loads((trained / "training.json").read_text())
    numbers = training["metrics"] | json.loads((evaluated / "evaluation.json").read_text())
    steps = json.loads((preprocessed / COLUMNS).read_text())
    rows, _ = metrics_log.read(trained / metrics_log.FILE)
    found = fit.measured(load(trained / "checkpoint"), dataset, config.seed)
    with np.load(evaluated / LOG_PROBS) as known:
        log_probs = {split: known[split] for split in ("train", "test")}
    least = fit.unlikely(dataset, log_probs["test"])
    figures = curves(rows, numbers, found, log_probs) | classifier.figures(evaluated)
    images = draw(figures | samples(manifest, found, least), run.output)
    results = {
        "numbers": dict(sorted(numbers.items())),
        "verdict": training["verdict"],
        "columns": steps,
        "warnings": [
            *training["warnings"],
            *doubts(numbers, manifest, config.model),
            *found.warnings,
            *manifest.warnings,
        ],
        "fit": fit.lines(found, fit.names(manifest)),
    }
    write_json(run.output / RESULTS, results)
    html = page(results, manifest, images, found, least, command=run.command, config=dump(config))
    (run.output / "report.html").write_text(html)
    run.log_artifacts(run.output)
