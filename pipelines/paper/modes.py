"""From a trained flow to its divergence from 512 modes in ten dimensions, and their masses."""

from pathlib import Path

import numpy as np
import torch

from ebflow.checkpoint import load
from ebflow.evaluation import Estimate
from ebflow.randomness import generator, normal
from ebflow.toy import hops, hops_log_prob, mode
from pipelines.data.dataset import Dataset
from pipelines.paper.config import ModesConfig
from pipelines.tracking.run import StageRun

ARRAYS = "arrays.npz"
MODES = 512
ROWS = 1_000  # Points at a time


def modes(
    config: ModesConfig, data: Path, preprocessed: Path, trained: Path, *, run: StageRun
) -> None:
    """Writes ``evaluation.json`` and ``arrays.npz`` with the log-densities of new points.

    The points are the same for every flow. The noise of each point gives its exact log-density.
    The mass of a mode is a share of samples; half of their summed differences is a total
    variation. Samples of the distribution itself differ too, by ``study/modes_tv_truth``.
    """
    run.open(config, Dataset(data), "testing")
    flow = load(trained / "checkpoint")
    like = torch.empty((), dtype=torch.float64)
    noise = normal((config.samples, 10), like, generator(0, "modes"))
    points = hops(noise)
    with torch.no_grad():
        log_probs = torch.cat([flow.log_prob(part) for part in points.split(ROWS)]).double()
        latents = normal((config.samples, 10), like, generator(0, "modes", "flow"))
        drawn = flow.from_latent(latents)
    again = hops(normal((config.samples, 10), like, generator(1, "modes")))
    kl = Estimate.of(hops_log_prob(noise) - log_probs, name="log p − log q")
    nll = Estimate.of(-log_probs, name="−log q")
    run.write_metrics(
        {
            "study/kl": kl.value,
            "study/kl_se": kl.se,
            "study/nll": nll.value,
            "study/nll_se": nll.se,
            "study/modes_tv": total_variation(mode(drawn)),
            "study/modes_tv_truth": total_variation(mode(again)),
        }
    )
    np.savez(run.output / ARRAYS, model_log_probs=log_probs.numpy())


def total_variation(found: torch.Tensor) -> float:
    """Returns that of the masses of modes in samples, from 1/512 each."""
    masses = torch.bincount(found, minlength=MODES).double() / len(found)
    return float(0.5 * (masses - 1 / MODES).abs().sum())
