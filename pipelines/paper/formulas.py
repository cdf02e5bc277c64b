"""The paper's formulas, each beside another way to compute it; float64, seconds.

The reference is autograd's Jacobian of the map from data to latent: log p, its gradient, and the
trace of its Hessian. Stochastic objectives are repeated at the same points. A difference of means
is told in standard errors, z.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from ebflow import objectives
from ebflow.architectures import dense
from ebflow.bijections import Affine, Dense, Dequantize
from ebflow.divergences import fisher_divergence, kl_divergence
from ebflow.evaluation import Estimate, log_probs
from ebflow.flow import Flow
from ebflow.randomness import generator as derive
from pipelines.data.named import SOURCES
from pipelines.paper.config import FormulasConfig
from pipelines.tracking.run import StageRun

# Data sets of the paper by their names here.
DATA = (
    "sine", "swirl", "checkerboard", "multimodal10", "mnist", "cifar10", "stl10", "celeba",
)  # fmt: skip

# Forms of score matching that estimate ½‖s‖² + tr H, with options that make their bias small.
UNBIASED = {
    "ssm": {},
    "ssm_vr": {},
    "taylor_sm": {"step": 1e-2},
    "fd_ssm": {"epsilon": 1e-2},
}

BATCHES = 50  # Batches of a mean gradient
LEVELS = 16  # Levels of the integers whose probabilities are known


def formulas(config: FormulasConfig, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: errors, and differences in standard errors."""
    run.log_params(config.model_dump())
    noise = derive(config.seed, "formulas")
    flow = dense((config.size,), depth=3, noise=0.5, generator=noise).double()
    shallow = dense((config.size,), depth=2, noise=0.5, bias=0.3, generator=noise).double()
    x = torch.randn(config.points, config.size, generator=noise, dtype=torch.float64)
    run.write_metrics({
        **_exact(flow, x),
        "study/error_exact_sm": _closed_form(shallow, x),
        **_stochastic(flow, x, config.repeats, noise),
        "study/z_sml": _likelihood_gradient(flow, x, config.repeats, noise),
        **_divergences(config.size, config.repeats, noise),
        **_integers(config.repeats, noise),
        "study/data_sets_missing": float(len({*DATA} - {*SOURCES})),
    })  # fmt: skip


def reference_log_prob(flow: Flow, x: Tensor) -> Tensor:
    """Returns log p at one point with shape (D,), by autograd's Jacobian and its determinant."""

    def latent(row: Tensor) -> Tensor:
        return flow.to_latent(row[None])[0]

    matrix = jacobian(latent, x, create_graph=True)
    base = -0.5 * latent(x).square().sum() - len(x) / 2 * math.log(2 * math.pi)
    return base + torch.linalg.slogdet(matrix)[1]


def exact_loss(flow: Flow, x: Tensor) -> Tensor:
    """Returns ½‖s‖² + tr H at one point with shape (D,), by autograd's Hessian."""

    def log_prob(row: Tensor) -> Tensor:
        return -flow.energy(row[None])[0]

    (score,) = torch.autograd.grad(log_prob(leaf := x.clone().requires_grad_()), leaf)
    return 0.5 * score.square().sum() + hessian(log_prob, x).diagonal().sum()


def _exact(flow: Flow, x: Tensor) -> dict[str, float]:
    """Returns the largest errors of energy, normalizer, score and trace."""
    at = flow.at(x)
    references, scores = [], []
    for row in x:
        leaf = row.clone().requires_grad_()
        value = reference_log_prob(flow, leaf)
        references.append(value.detach())
        scores.append(torch.autograd.grad(value, leaf)[0])
    expected = torch.stack(references)
    found = -flow.energy(x) - flow.log_normalizer()
    loss = objectives.exact_sm(flow, x, generator=derive(0))
    exact = torch.stack([exact_loss(flow, row) for row in x])
    errors = {
        "log_prob": found - expected,
        "score": at.score - torch.stack(scores),
        "exact_loss": loss - exact,
    }
    return {
        f"study/error_{name}": float(error.detach().abs().max()) for name, error in errors.items()
    }


def _closed_form(flow: Flow, x: Tensor) -> float:
    """Returns the largest error of ``exact_sm`` of two dense layers, which has a closed form."""
    found = objectives.exact_sm(flow, x, generator=derive(0))
    expected = torch.stack([exact_loss(flow, row) for row in x])
    return float((found - expected).detach().abs().max())


def _stochastic(flow: Flow, x: Tensor, repeats: int, noise: torch.Generator) -> dict[str, float]:
    """Returns z of each form of score matching, beside the exact loss of the same points."""
    exact = float(torch.stack([exact_loss(flow, row) for row in x]).mean())
    found = {}
    for name, options in UNBIASED.items():
        objective = objectives.OBJECTIVES[name]
        with torch.no_grad():
            means = [float(objective(flow, x, generator=noise, **options).mean())
                     for _ in range(repeats)]  # fmt: skip
        found[f"study/z_{name}"] = _z(torch.tensor(means, dtype=torch.float64), exact)
    return found


def _z(values: Tensor, expected: float) -> float:
    """Returns how many standard errors the mean of values is from a number."""
    estimate = Estimate.of(values, name="values")
    return (estimate.value - expected) / estimate.se


def _likelihood_gradient(flow: Flow, x: Tensor, repeats: int, noise: torch.Generator) -> float:
    """Returns z of the gradient by ``sml``, in a random direction, beside that by ``ml``."""
    directions = [torch.randn(p.shape, generator=noise, dtype=p.dtype) for p in flow.parameters()]

    def slope(objective: Callable[..., Tensor], rows: Tensor) -> float:
        loss = objective(flow(), rows, generator=noise).mean()
        gradients = torch.autograd.grad(loss, [*flow.parameters()])
        pairs = zip(gradients, directions, strict=True)
        return float(sum((gradient * v).sum() for gradient, v in pairs))

    rows = x.repeat(max(1, repeats // len(x)), 1)
    slopes = [slope(objectives.sml, rows) for _ in range(BATCHES)]
    return _z(torch.tensor(slopes, dtype=torch.float64), slope(objectives.ml, x))


def _divergences(size: int, repeats: int, noise: torch.Generator) -> dict[str, float]:
    """Returns z of the divergences of two Gaussians, beside their closed forms."""
    matrices, means = [], []
    for _ in range(2):
        matrix = torch.eye(size, dtype=torch.float64)
        matrix += 0.3 * torch.randn(size, size, generator=noise, dtype=torch.float64)
        matrices.append(matrix)
        means.append(torch.randn(size, generator=noise, dtype=torch.float64))
    flows = [
        Flow((size,), [Dense(matrix, -matrix @ mean)]).double()
        for matrix, mean in zip(matrices, means, strict=True)
    ]
    p, q = (matrix.mT @ matrix for matrix in matrices)  # precisions
    covariance, shift = torch.linalg.inv(p), means[1] - means[0]
    log_dets = torch.linalg.slogdet(p)[1] - torch.linalg.slogdet(q)[1]
    kl = 0.5 * ((q @ covariance).trace() - size + shift @ q @ shift + log_dets)
    fisher = 0.5 * ((q - p) @ covariance @ (q - p)).trace() + 0.5 * (q @ shift).square().sum()
    with torch.no_grad():
        x = flows[0].sample(100 * repeats, generator=noise)
    found = {}
    for name, divergence, value in (
        ("kl", kl_divergence, kl),
        ("fisher", fisher_divergence, fisher),
    ):
        estimate = divergence(*flows, x)
        found[f"study/z_{name}"] = (estimate.value - float(value)) / estimate.se
    return found


def _integers(repeats: int, noise: torch.Generator) -> dict[str, float]:
    """Returns gaps of bounds for integers below their probability, which is known: nats a row.

    The flow is a Gaussian of each dequantized integer.
    """
    size, mean, scale = 4, 7.0, 2.0
    layers = [Dequantize(LEVELS), Affine(mean, 1 / scale, (size,), dtype=torch.float64)]
    flow = Flow((size,), layers, n_preprocessing=2).double()
    x = torch.randint(2, LEVELS - 2, (repeats, size), generator=noise, dtype=torch.uint8)
    edges = (x.numpy()[..., None] + np.array([0, 1]) - mean) / scale
    exact = np.log(np.diff(norm.cdf(edges))[..., 0]).sum(1)
    bounds = {
        "mean": log_probs(flow, x, samples=64),
        "weighted": log_probs(flow, x, samples=64, importance_weighted=True),
    }
    return {
        f"study/gap_{name}": float(exact.mean() - bound.mean()) for name, bound in bounds.items()
    }
