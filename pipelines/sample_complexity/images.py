"""Diffusion models of images: the errors of U-Nets, and pictures of their samples.

Columns of rows with the panel ``images`` beside those in ``rows.py``: ``distribution``, and errors
over all levels as in ``data_like.py``. Rows with the panel ``pictures`` have ``pixels``, with
``PICTURES`` images of each learner; ``m`` is missing for those that learn nothing.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from ebflow.complexity.denoisers import PreconditionedDenoisers
from ebflow.complexity.samplers import ladder, probability_flow
from ebflow.complexity.truths import Truth, load
from ebflow.complexity.unet import UNet
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.reporting.claims import Measured, Question
from pipelines.reporting.statistics import below, student
from pipelines.reporting.style import BASELINE, FLOW, panels, show_tiles
from pipelines.sample_complexity.config import ComplexityConfig, ImageCell
from pipelines.sample_complexity.data_like import LEAST, WIDEST, Measure
from pipelines.sample_complexity.rows import family, where
from pipelines.sample_complexity.training import TrainingSets, train

UNETS, EXACT, TRUE = "U-Nets", "exact score", "true samples"  # Names in the column ``learner``

LEVELS = 5  # Noise levels at which errors are measured, less one
POINTS = 20  # Test points of each component at every level
PICTURES = 16  # Samples of each network
RATE = 5e-3  # The initial learning rate
FALL = 0.15  # Errors fall if the logarithm of their ratio changes by more than this

# Errors over all levels: in mean square, and at the quantile.
BOTH = {"levels_l2": "mean square", "levels_q": "quantile"}

DARKEST, BRIGHTEST = -1.5, 3.0  # Of distributions whose mean image is not known


def images(cell: ImageCell) -> Iterator[dict[str, Any]]:
    """Yields the errors of U-Nets, and pictures of the first training set."""
    truth = load(cell.distribution)
    sets = _training_sets(cell, truth)
    size = sets.clean.shape[2]
    start = derive(cell.seed, "images", "start", cell.distribution, cell.first)
    ensemble = PreconditionedDenoisers([UNet(size, cell.width, start) for _ in sets.owner])
    noise = derive(cell.seed, "images", "train", cell.distribution, cell.first)
    for _ in train(
        ensemble, sets, generator=noise, lengths=(cell.steps,), least=LEAST, highest=WIDEST,
        rows=cell.batch, lr=RATE,
    ):  # fmt: skip
        pass
    constants = {"distribution": cell.distribution, "size": size, "eta": 0.0, "step": cell.steps}
    measure = Measure(cell.seed, truth, ladder(WIDEST, LEAST, LEVELS), POINTS)
    errors = measure.errors(
        lambda x, sigma: ensemble.denoise(x.float(), sigma), sets.columns["seed"].tolist()
    )
    yield {"panel": "images", "learner": UNETS, **sets.columns, **errors, **constants}
    if cell.first == 0:
        for learner, m, x in _pictures(cell, truth, ensemble):
            yield {
                "panel": "pictures", "learner": learner, "m": [m], "seed": 0,
                "pixels": [x.float().flatten().tolist()], **constants,
            }  # fmt: skip


def _training_sets(cell: ImageCell, truth: Truth) -> TrainingSets:
    def sample(index: int) -> tuple[Tensor, Tensor]:
        noise = derive(cell.seed, "images", "set", cell.distribution, index)
        clean = truth.clean.sample(max(cell.sizes), generator=noise).float()
        return clean, torch.zeros(len(clean), dtype=torch.bool)

    return TrainingSets.sampled(sample, cell.sets, cell.sizes)


def _pictures(
    cell: ImageCell, truth: Truth, ensemble: PreconditionedDenoisers
) -> Iterator[tuple[str, int | None, Tensor]]:
    """Yields learners, their m and their samples, from the same noise for all."""
    noise = derive(cell.seed, "images", "pictures", cell.distribution)
    levels = ladder(WIDEST, LEAST, cell.levels)
    start = WIDEST * normal((PICTURES, truth.clean.size), truth.clean.means, noise)
    yield TRUE, None, truth.clean.sample(PICTURES, generator=noise)
    exact = probability_flow(lambda x, sigma: truth.smoothed(sigma).score(x), start, levels=levels)
    yield EXACT, None, truth.denoise(exact, LEAST)
    same = start.float().expand(ensemble.count, *start.shape)
    x = ensemble.denoise(probability_flow(ensemble.score, same, levels=levels), LEAST)
    for m, samples in zip(cell.sizes, x[: len(cell.sizes)], strict=True):
        yield UNETS, m, samples


def about_images_by_size(config: ComplexityConfig, rows: pd.DataFrame) -> Iterator[Measured]:
    """Yields the claims on both errors of U-Nets against m."""
    name, sizes = config.images.names[0], config.images.sizes
    some = where(rows, distribution=name)
    for column, error in BOTH.items():
        logs = np.log(family(some, column))
        yield Question(
            f"U-Nets for {name} have less {error} error from m = {sizes[-1]:,} samples than from "
            f"{sizes[0]:,}",
            "error over all levels with the most samples over that with the fewest, a logarithm",
            below(-FALL), figure="images", note="mean over training sets, paired", item="G8",
        ), student(logs[:, -1] - logs[:, 0])  # fmt: skip


def draw_images(config: ComplexityConfig, errors: pd.DataFrame, pictures: pd.DataFrame) -> Figure:
    """Draws samples of all learners and both errors against m, a row for each distribution."""
    names = config.images.names
    across = 3 + len(config.images.sizes)
    figure, axes = panels(across, 2.6 * across, 2.7 * len(names), down=len(names), squeeze=False)
    for line, name in zip(axes, names, strict=True):
        for axis, picture in zip(line, _records(where(pictures, distribution=name)), strict=False):
            _tiles(axis, name, picture)
        _errors(line[-1], where(errors, distribution=name))
    axes[0, -1].legend(fontsize=7)
    return figure


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return rows[["learner", "m", "pixels", "size"]].to_dict("records")


def _tiles(axis: Axes, name: str, picture: dict[str, Any]) -> None:
    values = np.asarray(picture["pixels"], float).reshape(PICTURES, -1)
    side = round(picture["size"] ** 0.5)
    show_tiles(axis, _grey(name, values), (side, side))
    m = "" if pd.isna(picture["m"]) else f", m = {picture['m']:,}"
    axis.set_title(f"{name}: {picture['learner']}{m}", fontsize=8)


def _grey(name: str, values: np.ndarray) -> np.ndarray:
    """Returns grey levels in [0, 1]; digits with their mean image, which others lack."""
    if name != "digits":
        return (values - DARKEST) / (BRIGHTEST - DARKEST)
    data = load_digits().data
    mean = data.mean(0)
    scale = np.sqrt(np.square(data - mean).mean())
    return (mean + scale * values) / data.max()


def _errors(axis: Axes, rows: pd.DataFrame) -> None:
    root = float(rows["size"].iloc[0]) ** 0.5
    for (column, label), color in zip(BOTH.items(), (BASELINE, FLOW), strict=True):
        mean = rows.groupby("m")[column].mean() / root
        axis.plot(mean.index.to_numpy(float), mean, marker=".", color=color, label=label)
    axis.set(xscale="log", xlabel="m", ylabel="σ error / √D")
    sizes = sorted(rows["m"].unique())
    axis.set_xticks([float(m) for m in sizes], [f"{m:,}" for m in sizes])
    axis.minorticks_off()
