"""From a trained flow to its divergences from an exact density in the plane, and its pictures."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebflow.checkpoint import load
from ebflow.divergences import fisher_divergence, kl_divergence, repository_kld
from ebflow.randomness import generator, normal
from ebflow.toy import SAMPLERS
from ebflow.toy_densities import SMOOTHED
from pipelines.data.dataset import Dataset
from pipelines.paper.config import DivergeConfig
from pipelines.reporting import plane
from pipelines.tracking.run import StageRun

EXTENT = 9.0  # Half the side of a picture

SQUARE = plane.Square((-EXTENT, -EXTENT), (EXTENT, EXTENT))

ARRAYS = "arrays.npz"


def diverge(
    config: DivergeConfig, data: Path, preprocessed: Path, trained: Path, *, run: StageRun
) -> None:
    """Writes ``evaluation.json`` and ``arrays.npz``.

    The flow has the averaged weights at the end of training. Validation, by data without noise,
    would choose another one. The points are new, and the same for every flow.

    ``arrays.npz`` has the pictures, ``model_log_probs`` of the points, and some of the points.
    """
    run.open(config, Dataset(data), "testing")
    flow = load(trained / "last")
    truth = SMOOTHED[config.density](config.sigma)
    points = noised_points(config)
    metrics = {}
    for name, divergence in DIVERGENCES.items():
        estimate = divergence(truth, flow, points)
        metrics |= {f"study/{name}": estimate.value, f"study/{name}_se": estimate.se}
    run.write_metrics(metrics)
    with torch.no_grad():
        log_probs = torch.cat([flow.log_prob(part) for part in points.split(plane.ROWS)])
    pictures = plane.evaluate(flow, SQUARE, pixels=config.pixels)
    rows = points[: config.shown].numpy()
    np.savez(run.output / ARRAYS, rows=rows, model_log_probs=log_probs.numpy(), **pictures)


DIVERGENCES = {"kl": kl_divergence, "fisher": fisher_divergence, "repository_kld": repository_kld}


def noised_points(config: DivergeConfig) -> Tensor:
    """Returns new points of the smoothed density, with shape (samples, 2)."""
    noise = generator(0, "diverge", config.density)
    clean = SAMPLERS[config.density](config.samples, generator=noise)
    return torch.add(clean, normal(clean.shape, clean, noise), alpha=config.sigma)
