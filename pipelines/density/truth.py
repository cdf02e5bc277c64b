"""Divergences of a flow from the exact density of a named toy distribution.

A flow that is trained on noised rows, or by denoising score matching, learns the density smoothed
by that noise. For ``sine``, ``swirl`` and ``checkerboard`` it is a mixture of Gaussians, and the
metrics are its Kullback-Leibler and its Fisher divergence. Any other flow learns the density
itself, which has jumps: it has a Kullback-Leibler divergence only. That of ``multimodal10`` is
known at points whose noise is known.

The points are new, of another seed than the data. There are no metrics if the truth is not known:
for any other data, for noise in ten dimensions, for noise on rows behind preprocessing that is not
linear, and for noise below ``LEAST`` in raw units, at which the mixture is too large.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ebflow.bijections import Bijection
from ebflow.divergences import fisher_divergence, kl_divergence
from ebflow.evaluation import Estimate
from ebflow.flow import Flow
from ebflow.randomness import generator, normal
from ebflow.toy import SAMPLERS, hops, hops_log_prob
from ebflow.toy_densities import CLEAN, SMOOTHED, smoothed
from pipelines.data.manifest import Manifest

POINTS = 5_000
ROWS = 1_000  # Points at a time
AFFINE = 1e-6  # Largest difference of the preprocessing from an affine map
LEAST = 0.1  # Noise in raw units; a swirl has then 97,000 components

WIDTHS = {**dict.fromkeys(SMOOTHED, 2), "multimodal10": 10}


def divergences(
    flow: Flow, manifest: Manifest, smoothing: Sequence[float] | None, seed: int
) -> dict[str, float]:
    """Returns ``test/kl`` and ``test/fisher`` with their errors, of what is known.

    Arguments:
        flow: The flow.
        manifest: That of the data.
        smoothing: The standard deviations of the noise on raw and on preprocessed rows, or None,
            as ``Training.smoothing``.
        seed: The seed of the points.

    Raises:
        NonFinite: If a log-density of the flow is not finite.
    """
    name = _toy(manifest)
    if name is None or smoothing is None:
        return {}
    noise = generator(seed, "truth", name)
    if not any(smoothing):
        return _metrics(kl=_of_clean(flow, *_clean(name, noise)))
    if name not in SMOOTHED:
        return {}
    points = SAMPLERS[name](POINTS, generator=noise)
    covariance = _covariance(flow, points, *smoothing)
    if covariance is None or float(torch.linalg.eigvalsh(covariance)[0]) < LEAST**2:
        return {}
    truth = smoothed(name, covariance)
    points = points + normal(points.shape, points, noise) @ torch.linalg.cholesky(covariance).mT
    return _metrics(
        kl=kl_divergence(truth, flow, points), fisher=fisher_divergence(truth, flow, points)
    )


def _metrics(**estimates: Estimate) -> dict[str, float]:
    values = {f"test/{name}": estimate.value for name, estimate in estimates.items()}
    errors = {f"test/{name}_se": estimate.se for name, estimate in estimates.items()}
    return values | errors


def _toy(manifest: Manifest) -> str | None:
    """Returns the name of the toy distribution, if the data have all its columns in order."""
    name, files = manifest.name, manifest.source["files"]
    names = tuple(f"x{k + 1}" for k in range(WIDTHS.get(name, 0)))
    whole = manifest.columns is not None and tuple(manifest.columns.features) == names
    return name if whole and not manifest.context and files[0]["file"] == name else None


def _covariance(flow: Flow, points: Tensor, raw: float, matched: float) -> Tensor | None:
    """Returns that of the noise in raw units, None if the preprocessing is not linear."""
    covariance = raw**2 * torch.eye(points.shape[1], dtype=torch.float64)
    if not matched:
        return covariance
    matrix = _matrix(list(flow.layers)[: flow.n_preprocessing], points)
    if matrix is None:
        return None
    return covariance + matched**2 * torch.linalg.inv(matrix.mT @ matrix)


@torch.no_grad()
def _matrix(layers: Sequence[Bijection], points: Tensor) -> Tensor | None:
    """Returns the matrix of layers with shape (D, D), if they are an affine map at the points."""
    middle, scale = points.mean(0), points.std(0)
    x = torch.cat([middle[None], middle + torch.diag(scale), points])
    for layer in copy.deepcopy(layers):
        x = layer.double()(x)
    start, ends, images = x.tensor_split([1, 1 + len(middle)])
    matrix = ((ends - start) / scale[:, None]).mT
    expected = start + (points - middle) @ matrix.mT
    return matrix if torch.allclose(images, expected, rtol=AFFINE, atol=AFFINE) else None


def _clean(name: str, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns points without noise, and their exact log-densities."""
    if name in CLEAN:
        points = SAMPLERS[name](POINTS, generator=noise)
        return points, CLEAN[name](points)
    like = torch.empty((), dtype=torch.float64)
    drawn = normal((POINTS, WIDTHS[name]), like, noise)
    return hops(drawn), hops_log_prob(drawn)


@torch.no_grad()
def _of_clean(flow: Flow, points: Tensor, exact: Tensor) -> Estimate:
    """Returns the Kullback-Leibler divergence from a density with these log-densities."""
    log_probs = torch.cat([flow.log_prob(part) for part in points.split(ROWS)])
    return Estimate.of(exact - log_probs.double(), name="log p − log q")
