"""From the artefacts of the pipeline to its result: numbers, figures, tables and a page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ebflow.checkpoint import load
from pipelines import metrics_log
from pipelines.config import DensityConfig
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.data.messages import listed
from pipelines.density import likelihoods
from pipelines.density.evaluate import LOG_PROBS
from pipelines.density.figures import plots
from pipelines.density.fit import ROWS, Fit, measured
from pipelines.reporting.claims import Conclusion
from pipelines.reporting.result import Plot, Result, Table
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import COLUMNS

METRICS = ("test/nll", "test/", "best/", "select/")
"""Beginnings of the numbers that are metrics of the pipeline's MLflow run, in their order."""

NAMED = 8
"""Most columns that a line names; ``summary.json`` has all."""

NOTE = (
    "NLL in nats ± its standard error over the test rows. Flow − this: the mean difference per "
    "row; below 0 the flow is better. The mixture is fitted by expectation maximization after "
    "the Gaussian's whitening, its size chosen on the validation split."
)
TREATMENTS = {
    "exact": "with an exact probability of each value",
    "grids": "dequantized by noise of their step",
    "levels": "dequantized by noise up to the next level",
    "atoms": "with repeated values, which have probabilities instead of densities",
    "bounds": "mapped to the line by a logit or logarithm",
    "tails": "transformed by Johnson's S_U",
}
"""Texts about the kinds of columns in the description of the preprocessing."""
SYNTHETIC = (
    "Test rows beside as many samples, {rows} at most. Real: the same of random halves of test "
    "and training rows. C2ST: 1 if boosted trees cannot distinguish samples from test rows. "
    "Shapes and trends are those of SDMetrics. Columns are predicted by random forests."
)
REASONS = "The values of a row with the least p-values, each given all others of the row."


def report(
    config: DensityConfig,
    data: Path,
    preprocessed: Path,
    trained: Path,
    evaluated: Path,
    *,
    run: StageRun,
) -> None:
    """Writes the result of the density pipeline."""
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "testing")
    with np.load(evaluated / LOG_PROBS) as arrays:
        log_probs = {split: arrays[split] for split in ("train", "test")}
    flow = load(trained / "checkpoint")
    compared = measured(flow, dataset, config.seed, log_probs["test"])
    training = json.loads((trained / "training.json").read_text())
    numbers = training["metrics"] | json.loads((evaluated / "evaluation.json").read_text())
    rows = metrics_log.read(trained / metrics_log.FILE)
    figures = plots(dataset.manifest, rows, numbers, compared, log_probs)
    steps = json.loads((preprocessed / COLUMNS).read_text())
    result(config, dataset.manifest, numbers, training, steps, compared, figures).save(config, run)


def result(
    config: DensityConfig,
    manifest: Manifest,
    numbers: Mapping[str, Any],
    training: Mapping[str, Any],
    steps: Mapping[str, Any],
    compared: Fit,
    figures: Sequence[Plot],
) -> Result:
    """Returns the result.

    ``numbers`` are the metrics of training and evaluation, ``training`` has the verdict and the
    warnings, and ``steps`` are the preprocessing of a table's columns.
    """
    names = [name for start in METRICS for name in numbers if name.startswith(start)]
    lines, rival = likelihoods.lines(numbers), likelihoods.better(numbers)
    finding = f"The flow's negative log-likelihood of the test rows is {rival.compared}."
    doubts = likelihoods.warnings(numbers, manifest, config.model)
    return Result(
        title=f"Density of {manifest.name}",
        conclusion=Conclusion((finding,)),
        warnings=[*training["warnings"], *doubts, *compared.warnings, *manifest.warnings],
        headline=Table("", likelihoods.HEADINGS, [line.cells for line in lines], NOTE),
        facts={
            **_data(manifest, steps),
            "trained by": config.method,
            **_training(numbers, training["verdict"]),
        },
        sections=[*figures, *_tables(manifest, numbers, compared)],
        metrics={name: numbers[name] for name in names},
        values={
            **{name: value for name, value in sorted(numbers.items()) if name not in names},
            "verdict": training["verdict"],
            "columns": steps,
            "fit": compared.values,
            "method": config.method,
            "splits": manifest.assignment,
            "seeds": {"data": config.data.seed, "training": config.seed},
        },
    )


def _data(manifest: Manifest, steps: Mapping[str, Any]) -> dict[str, str]:
    """Returns lines on the data and the preprocessing of columns."""
    counts = ", ".join(f"{count} {split}" for split, count in manifest.counts.items())
    shape = f"shape {' × '.join(map(str, manifest.shape))}"
    width = f"{manifest.columns.width} columns" if manifest.columns else shape
    return {
        "data": f"{counts} rows of {width}; SHA-256 of the manifest {manifest.digest[:12]}",
        "splits": manifest.assignment,
        **{
            kind: f"{listed(list(steps[kind]), NAMED)}: {treatment}"
            for kind, treatment in TREATMENTS.items()
            if steps.get(kind)
        },
    }


def _training(numbers: Mapping[str, Any], verdict: str) -> dict[str, str]:
    """Returns lines on the training."""
    took = f"{numbers['train/steps']} steps in {numbers['time/train_s']:.1f} s"
    best = f"best at step {numbers['train/best_step']}"
    return {
        "training": f"{verdict}; {numbers['train/steps_per_s']:.0f} steps/s ({took}; {best})",
        "outside step": f"{numbers['time/share_outside_step']:.1%} of the training loop",
    }


def _tables(manifest: Manifest, numbers: Mapping[str, Any], compared: Fit) -> Iterator[Table]:
    if compared.check is not None:
        headings, *rows = compared.check.rows
        yield Table("Synthetic rows", headings, rows, SYNTHETIC.format(rows=ROWS))
    headings = ("row of the source, from 0", "log-density (nats)", "least likely values")
    yield Table("Least likely test rows", headings, compared.least, REASONS)
    texts = ("" if value is None else f"{value:.6g}" for _, value in sorted(numbers.items()))
    yield Table("All numbers", ("name", "value"), [*zip(sorted(numbers), texts, strict=True)])
