r"""From a trained flow to its divergences from an exact density in the plane.

Divergences of a model q from an exact density p are estimated from samples x of p, with standard
errors. The samples are independent of the training rows of q:

* Kullback-Leibler: :math:`\mathrm{KL}(p \| q) = E_p[\log p - \log q]`, in nats;
* Fisher: :math:`F(p \| q) = \tfrac12 E_p \| \nabla \log p - \nabla \log q \|^2`, which needs no
  normalizer. Both are zero only if p = q.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ebflow.checkpoint import load
from ebflow.density import LogDensity
from ebflow.estimates import Estimate
from ebflow.flow import Flow
from ebflow.randomness import generator, normal
from ebflow.toy import SAMPLERS, SMOOTHED, parzen
from pipelines.paper.config import DivergeConfig
from pipelines.tracking.run import StageRun
from pipelines.training.stage_reports import begin, write_metrics

EXTENT = 9.0
"""Half the side of a picture."""

ROWS = 2_000
"""Points at a time."""


class Normalized(Protocol):
    """A normalized density."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats with shape (B,)."""
        ...


def diverge(config: DivergeConfig, data: Path, trained: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json`` and, for pictures, ``arrays.npz``.

    The flow has the averaged weights at the end of training: validation, by data without noise,
    would choose another one.
    """
    dataset = begin(config, 1, data, run, "testing")
    flow = load(trained / "last")
    truth = SMOOTHED[config.density](config.sigma, dtype=torch.float64)
    estimates = _divergences(config, truth, flow, dataset.split("test").tensor())
    metrics = {}
    for name, one in estimates.items():
        metrics |= {f"study/{name}": one.value, f"study/{name}_se": one.se}
    write_metrics(metrics, run)
    pictures = {"truth": _picture(config, truth), "model": _picture(config, flow)}
    np.savez(run.output / "arrays.npz", extent=EXTENT, **pictures)


def _divergences(
    config: DivergeConfig, truth: Normalized, flow: Flow, test: Tensor
) -> dict[str, Estimate]:
    """Returns KL and Fisher divergences from the smoothed density, at fresh points of it.

    And the "KLD" of the paper's code, from the Parzen density of the test points. As in that code,
    the points are noised test points, whose own kernels stay in the density.
    """
    noise = generator(0, "diverge", config.density)
    fresh = SAMPLERS[config.density](config.samples, generator=noise, dtype=torch.float64)
    x, clean = _noised(fresh, config.sigma, noise), test[: config.samples].double()
    noised = _noised(clean, config.sigma, generator(0, "diverge", "repository"))
    return {
        "kl": kl_divergence(truth, flow, x),
        "fisher": fisher_divergence(truth, flow, x),
        "kl_repository": repository_kld(parzen(clean, config.sigma), flow, noised),
    }


def kl_divergence(p: Normalized, q: Normalized, x: Tensor) -> Estimate:
    """Returns KL(p ‖ q) in nats from samples of p; a small one may be negative."""
    log_p, log_q = (_log_prob(d, x, 1_000).double() for d in (p, q))
    return Estimate.of(log_p - log_q, name="log p − log q")


@torch.no_grad()
def fisher_divergence(p: LogDensity, q: LogDensity, x: Tensor) -> Estimate:
    """Returns ½ E‖∇log p − ∇log q‖² from samples of p, in nats per squared unit of x."""
    terms = [
        0.5 * (p.score(rows) - q.score(rows)).flatten(1).double().square().sum(1)
        for rows in x.split(1_000)
    ]
    return Estimate.of(torch.cat(terms), name="squared difference of scores")


def repository_kld(p: Normalized, q: Normalized, x: Tensor) -> Estimate:
    """Returns E[p log p − log q], which the official code of EBFlow prints as "KLD".

    The first term ought to be E[log p]. In the plane it is about zero, so that this is nearly the
    negative log-likelihood of q. It serves only to compare with published numbers.
    """
    log_p, log_q = (_log_prob(d, x).double() for d in (p, q))
    return Estimate.of(log_p.exp() * log_p - log_q, name="p log p − log q")


@torch.no_grad()
def _log_prob(density: Normalized, x: Tensor, size: int = ROWS) -> Tensor:
    return torch.cat([density.log_prob(rows) for rows in x.split(size)])


def _noised(x: Tensor, sigma: float, noise: torch.Generator) -> Tensor:
    return torch.add(x, normal(x.shape, x, noise), alpha=sigma)


def _picture(config: DivergeConfig, density: Normalized) -> np.ndarray:
    """Returns log p on a square of pixels, the first row at the lowest x₂."""
    pixels = torch.arange(config.resolution, dtype=torch.float64) + 0.5
    side = EXTENT * (2 * pixels / config.resolution - 1)
    points = torch.cartesian_prod(side, side).flip(1)
    return _log_prob(density, points).float().view(config.resolution, -1).numpy()
