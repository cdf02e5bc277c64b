"""From a trained flow to its divergences from an exact density in the plane."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebflow.checkpoint import load
from ebflow.estimates import Estimate
from ebflow.flow import Flow
from ebflow.randomness import generator, normal
from ebflow.toy import SAMPLERS, SMOOTHED, parzen
from pipelines.paper.config import DivergeConfig
from pipelines.paper.divergences import Normalized, fisher_divergence, kl_divergence
from pipelines.tracking.run import StageRun
from pipelines.training.stage_reports import begin, write_metrics

EXTENT = 9.0
"""Half the side of a picture."""

ROWS = 2_000
"""Points of a picture at a time."""


def diverge(config: DivergeConfig, data: Path, trained: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json`` and, for pictures, ``arrays.npz``.

    The flow is that of the averaged weights at the end of training: the best by validation would
    be so for the data without noise.
    """
    dataset = begin(config, 1, data, run, "testing")
    flow = load(trained / "last")
    truth = SMOOTHED[config.density](config.sigma, dtype=torch.float64)
    estimates = _divergences(config, truth, flow, dataset.split("test").tensor())
    metrics = {}
    for name, found in estimates.items():
        metrics |= {f"study/{name}": found.value, f"study/{name}_se": found.se}
    write_metrics(metrics, run)
    pictures = {"truth": _picture(config, truth), "model": _picture(config, flow)}
    np.savez(run.output / "arrays.npz", extent=EXTENT, **pictures)


def _divergences(
    config: DivergeConfig, truth: Normalized, flow: Flow, test: Tensor
) -> dict[str, Estimate]:
    """Returns KL and Fisher divergences from the smoothed density, at fresh points of it.

    And what the paper's code prints: its "KLD" from the test points' own Parzen density. Those are
    noised and their kernels are not taken out, as in that code.
    """
    draws = generator(0, "diverge", config.density)
    fresh = SAMPLERS[config.density](config.samples, generator=draws, dtype=torch.float64)
    x, clean = _noised(fresh, config.sigma, draws), test[: config.samples].double()
    noised = _noised(clean, config.sigma, generator(0, "diverge", "repository"))
    return {
        "kl": kl_divergence(truth, flow, x),
        "fisher": fisher_divergence(truth, flow, x),
        "kl_repository": repository_kld(parzen(clean, config.sigma), flow, noised),
    }


@torch.no_grad()
def repository_kld(p: Normalized, q: Normalized, x: Tensor) -> Estimate:
    """Returns E[p log p − log q], which the official code of EBFlow prints as "KLD".

    The first term ought to be E[log p]. In the plane it is about zero, so this is nearly the
    negative log-likelihood of q. It is for comparison with published numbers only.
    """
    parts = x.split(ROWS)
    log_p, log_q = (torch.cat([d.log_prob(rows) for rows in parts]).double() for d in (p, q))
    return Estimate.of(log_p.exp() * log_p - log_q, name="p log p − log q")


def _noised(x: Tensor, sigma: float, draws: torch.Generator) -> Tensor:
    return torch.add(x, normal(x.shape, x, draws), alpha=sigma)


@torch.no_grad()
def _picture(config: DivergeConfig, density: Normalized) -> np.ndarray:
    """Returns log p on a square of pixels, the first row at the lowest x₂."""
    pixels = torch.arange(config.resolution, dtype=torch.float64) + 0.5
    side = EXTENT * (2 * pixels / config.resolution - 1)
    points = torch.cartesian_prod(side, side).flip(1)
    found = torch.cat([density.log_prob(rows) for rows in points.split(ROWS)])
    return found.float().view(config.resolution, config.resolution).numpy()
