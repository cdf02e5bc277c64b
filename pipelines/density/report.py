"""From the artefacts of the pipeline to its result: numbers, figures, tables and a page."""

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ebflow.checkpoint import load
from ebflow.tables.column import Column
from pipelines import metrics_log
from pipelines.config import DensityConfig, EvaluateConfig
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.data.messages import listed
from pipelines.density import likelihoods, plane
from pipelines.density.evaluate import LOG_PROBS
from pipelines.density.fit import EXPLAINED, ROWS, Fit, measured
from pipelines.metrics_log import Row
from pipelines.reporting.claims import Conclusion
from pipelines.reporting.result import Plot, Result, Table
from pipelines.reporting.style import BASELINE, DATA, FLOW, LIGHT, panels, show_tiles
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import COLUMNS

# Beginnings of the numbers that are metrics of the pipeline's MLflow run, in their order.
METRICS = ("test/nll", "test/", "best/", "select/")

NAMED = 8  # Most columns that a line names; ``summary.json`` has all

NOTE = (
    "NLL in nats ± its standard error over the test rows. Flow − this: the mean difference per "
    "row; below 0 the flow is better. The mixture is fitted by expectation maximization after "
    "the Gaussian's whitening, its size chosen on the validation split."
)
# Texts about the kinds of columns in the description of the preprocessing.
TREATMENTS = {
    "exact": "with an exact probability of each value",
    "grids": "dequantized by noise of their step",
    "levels": "dequantized by noise up to the next level",
    "atoms": "with repeated values, which have probabilities instead of densities",
    "bounds": "mapped to the line by a logit or logarithm",
    "tails": "transformed by Johnson's S_U",
}
SYNTHETIC = (
    "Test rows beside as many samples, {rows} at most. Real: the same of random halves of test "
    "and training rows. C2ST: 1 if boosted trees cannot distinguish samples from test rows. "
    "Shapes and trends are those of SDMetrics. Columns are predicted by random forests."
)
REASONS = (
    "The values of a row with the least p-values, each given all others of the row. "
    f"Images, and rows of more than {EXPLAINED} columns, have none."
)


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
    steps = json.loads((trained / COLUMNS).read_text())
    figures = [
        *plots(dataset.manifest, rows, numbers, compared, log_probs),
        *plane.plots(flow, dataset.manifest, steps, compared),
    ]
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
    doubts = likelihoods.warnings(numbers, manifest, training["model"])
    return Result(
        title=f"Density of {manifest.name}",
        conclusion=Conclusion((finding,)),
        warnings=[*training["warnings"], *doubts, *compared.warnings, *manifest.warnings],
        headline=Table("", likelihoods.HEADINGS, [line.cells for line in lines], NOTE),
        facts={
            **_data(manifest, steps),
            "trained by": training["model"]["method"],
            **({"chosen": training["choice"]} if "choice" in training else {}),
            **_training(numbers, training["verdict"], manifest.counts["validation"]),
            "workers": training["workers"],
            **_bounds(config.evaluate),
            **_truth(numbers),
        },
        sections=[*figures, *_tables(manifest, numbers, compared)],
        metrics={name: numbers[name] for name in names},
        values={
            **{name: value for name, value in sorted(numbers.items()) if name not in names},
            "verdict": training["verdict"],
            "workers": training["workers"],
            "columns": steps,
            "fit": compared.values,
            "method": training["model"]["method"],
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


def _training(numbers: Mapping[str, Any], verdict: str, held_out: int) -> dict[str, str]:
    """Returns lines on the training, of which some rows are held out for validation."""
    took = f"{numbers['train/steps']} steps in {numbers['time/train_s']:.1f} s"
    best, rows = f"best at step {numbers['train/best_step']}", numbers["val/rows"]
    best += f", chosen by {rows} of {held_out} validation rows" if rows < held_out else ""
    return {
        "training": f"{verdict}; {numbers['train/steps_per_s']:.0f} steps/s ({took}; {best})",
        "outside step": f"{numbers['time/share_outside_step']:.1%} of the training loop",
    }


def _bounds(config: EvaluateConfig) -> dict[str, str]:
    """Returns a line on likelihoods that are averages of densities over dequantization noise."""
    if not config.importance_weighted:
        return {}
    text = "densities averaged over {} samples of the dequantization noise: a tighter bound"
    return {"likelihoods": text.format(config.samples)}


def _truth(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Returns a line on divergences from the exact density, if it is known."""
    names = {"test/kl": "Kullback-Leibler {} nats", "test/fisher": "Fisher {}"}
    found = [
        text.format(likelihoods.with_error(numbers[name], numbers[f"{name}_se"], ".4f"))
        for name, text in names.items()
        if name in numbers
    ]
    return {"divergence from the exact density": ", ".join(found)} if found else {}


def _tables(manifest: Manifest, numbers: Mapping[str, Any], compared: Fit) -> Iterator[Table]:
    if compared.check is not None:
        headings, *rows = compared.check.rows
        yield Table("Synthetic rows", headings, rows, SYNTHETIC.format(rows=ROWS))
    headings = ("row of the source, from 0", "log-density (nats)", "least likely values")
    yield Table("Least likely test rows", headings, compared.least, REASONS)
    texts = ("" if value is None else f"{value:.6g}" for _, value in sorted(numbers.items()))
    yield Table("All numbers", ("name", "value"), [*zip(sorted(numbers), texts, strict=True)])


BINS = 40

MOST_COLUMNS, ACROSS = 32, 4  # Columns that are shown, and histograms side by side
MOST_LEVELS = 4  # Levels of a category that a histogram names at most

OF_TRAINING = (
    "Left: exact NLL of the averaged weights. Right: the latents of a perfect model have mean 0 "
    "and variance 1 in every direction. Score matching alone does not notice a direction that "
    "diverges; the likelihood does."
)
OF_LIKELIHOOD = (
    "Log-densities of the test rows, and of training rows, which are higher if the flow overfits; "
    "the first bin has the least likely rows."
)
OF_COLUMNS = (
    "The columns that differ most, at most 32, each over 99 % of its test rows; the outermost "
    "bins have all values beyond. The number is the column's shape, 1 if both are alike."
)


def plots(
    manifest: Manifest,
    rows: Sequence[Row],
    numbers: Mapping[str, float],
    fit: Fit,
    log_probs: Mapping[str, np.ndarray],
) -> list[Plot]:
    """Returns the plots of the report, from the metrics over steps and of the evaluation.

    ``log_probs`` has the log-densities of ``train`` and ``test`` rows in nats.
    """
    return [
        _curves(metrics_log.curve(rows, "validate"), numbers),
        _likelihood(log_probs),
        _images(manifest, fit) if fit.is_image else _columns(manifest, fit),
    ]


def _curves(rows: Sequence[Row], numbers: Mapping[str, float]) -> Plot:
    steps = [row["step"] for row in rows]
    curves = pd.DataFrame([row["metrics"] for row in rows], steps)
    nll, trained = curves["val/nll"], curves["train/nll"]
    baselines = {
        line.name: line.value("nll", "validation") for line in likelihoods.lines(numbers)[1:]
    }
    figure, (left, right) = panels(2, height=3.3)
    left.plot(nll, color=FLOW, marker=".", label="flow, validation rows")
    left.plot(trained, color=FLOW, ls=":", label="flow, 250 training rows")
    for (name, value), style in zip(baselines.items(), ("--", "-."), strict=True):
        left.axhline(value, color=BASELINE, ls=style, label=name)
    low = min(trained.iloc[-1], *nll, *baselines.values())
    high = max(nll.iloc[-1], *baselines.values())  # a bad start may leave the panel
    pad = high - low + 1
    left.set(ylabel="NLL (nats)", ylim=(low - 0.1 * pad, high + 0.5 * pad))
    right.plot(curves["latent/var_min"], color=FLOW, label="smallest variance")
    right.plot(curves["latent/var_max"], color=BASELINE, ls="--", label="largest variance")
    right.plot(curves["latent/mean_norm2"], color=DATA, ls=":", label="squared mean")
    right.axhline(1, color="black", lw=0.5)
    right.set_yscale("symlog", linthresh=0.1)
    right.set(ylabel="latent of validation rows", ylim=(-0.1, None))
    for axis, side in ((left, "left"), (right, "right")):
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        figure.legend(*axis.get_legend_handles_labels(), loc=f"outside upper {side}")
    return Plot("training", figure, OF_TRAINING, "Training")


def _likelihood(log_probs: Mapping[str, np.ndarray]) -> Plot:
    """Returns histograms of log-densities."""
    figure, axis = panels(height=3)
    test, train = log_probs["test"], log_probs["train"]
    ends = np.quantile(test, 0.002), max(test.max(), train.max())
    _compare(axis, test, train, *ends, labels=("test rows", "training rows"))
    axis.set(xlabel="log-density (nats)", ylabel="share of rows")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.legend(loc="upper left")
    return Plot("likelihood", figure, OF_LIKELIHOOD)


def _images(manifest: Manifest, fit: Fit) -> Plot:
    figure, axes = panels(2, height=4.2)
    for axis, images, title in zip(axes, (fit.x, fit.y), ("test data", "samples"), strict=True):
        show_tiles(axis, images.numpy() / (manifest.levels - 1), manifest.shape)
        axis.set_title(title)
    return Plot("samples", figure, "Exact samples, by the inverse of the flow.", "Samples")


def _columns(manifest: Manifest, fit: Fit) -> Plot:
    """Returns histograms of the columns, those that differ most if there are many."""
    shown = sorted(np.argsort(fit.shapes, kind="stable")[:MOST_COLUMNS].tolist())
    across = min(ACROSS, len(shown))
    down = math.ceil(len(shown) / across)
    figure, places = panels(across, height=1.7 * down + 0.4, down=down, squeeze=False)
    for axis, k in zip(places.flatten(), shown, strict=False):
        x, y = fit.x[:, k].double().numpy(), fit.y[:, k].double().numpy()
        low, high = np.quantile(x, (0.005, 0.995))
        _compare(axis, x, y, low, high)
        name = textwrap.fill(fit.names[k], 28, max_lines=2, placeholder="…")
        axis.set_title(f"{name}\n{fit.shapes[k]:.2f}", fontsize=7, parse_math=False)
        axis.tick_params(labelsize=6, labelleft=False)
        axis.xaxis.set_major_locator(MaxNLocator(3))
        if manifest.columns is not None:
            _name_levels(axis, manifest.columns.modelled[k])
    for axis in places.flatten()[len(shown) :]:
        axis.axis("off")
    handles = places[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=2, fontsize=8)
    return Plot("columns", figure, OF_COLUMNS, "Samples")


def _name_levels(axis: Axes, column: Column) -> None:
    """Writes the levels of a category in place of their codes, unless there are many."""
    if 0 < column.size <= MOST_LEVELS:
        short = [textwrap.shorten(name, 10, placeholder="…") or name[:10]
                 for name in column.level_names]  # fmt: skip
        axis.set_xticks(range(column.size), short, parse_math=False)


def _compare(
    axis: Axes,
    x: np.ndarray,
    y: np.ndarray,
    low: float,
    high: float,
    labels: Sequence[str] = ("test rows", "samples"),
) -> None:
    """Draws the shares of two samples; the outer bins have all beyond them."""
    room = 0.05 * (high - low) or max(1.0, abs(low))
    edges = np.linspace(low - room, high + room, min(BINS, 4 + math.isqrt(len(x))) + 1)
    of_x, of_y = (np.histogram(v.clip(edges[0], edges[-1]), edges)[0] / len(v) for v in (x, y))
    axis.stairs(of_x, edges, fill=True, color=LIGHT, label=labels[0])
    axis.stairs(of_y, edges, color=FLOW, lw=1.2, label=labels[1])
