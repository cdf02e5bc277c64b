"""From a trained flow to what it puts in place of missing pixels, beside simpler guesses.

A mask has the shape of an image, (C, H, W) or (H, W), and is true where a pixel is missing, in all
colours alike: those that handwriting covers, digits bundled with scikit-learn, scaled to H × W by
bilinear interpolation, where the ink is at least half of the strongest.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ebflow import imputation, sampling
from ebflow.checkpoint import load
from ebflow.data.loader import Dataset, Split
from ebflow.density import LogDensity
from ebflow.errors import BadInput
from ebflow.evaluation import Likelihood, log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import fit, gaussian
from ebflow.randomness import generator as derive
from pipelines.paper.config import ImputeConfig
from pipelines.tracking import StageRun

STEP = 1.0
"""Of Langevin's diffusion, over the inverse of the largest curvature of −log p (no unit; stable
below 2)."""

MOMENTUM = 0.95
"""Share of the velocity that a step keeps in Langevin's with momentum."""

H, SNR, SMOOTHING = 0.5, 0.1, 0.05
"""Of the paper's chain: its h, in units of the scaled logits, lowered to where its drift is
stable; the size of its noise (no unit); the weight of the blurred image in a step, lowered with
h²."""

SHRINKAGE = 1e-3
"""Share of the identity in the correlations of the Gaussian beside the flow."""

PROBES = 16
"""Chains at whose starts the largest curvature is sought."""

INK = 8.0
"""Half of the strongest ink of scikit-learn's digits."""

Drawn = Mapping[str, Tensor]
"""What samplers put in, with shape (images, draws, D), or guesses, with shape (images, D)."""


def impute(
    config: ImputeConfig, data: Path, trained: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes ``evaluation.json``: errors of imputed test images; and ``arrays.npz``, for pictures.

    Those have raw images with shape (images, D), ``missing``, and the values of black and white.

    Errors are in grey levels (raw units) a missing pixel and colour. Beside the chains stand
    the training mean of every pixel, and the conditional mean of the full-covariance Gaussian
    behind the same logit, each carried back to pixels. Either is one guess and no draw: what a
    chain is to be compared with in this is the mean of its draws.
    """
    run.log_params({"impute": config.model_dump()})
    torch.set_num_threads(config.threads)
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "testing")
    flow, test = load(trained / "checkpoint"), dataset.split("test")
    truth = test.tensor()[: config.images]
    missing = masks(test.shape, len(truth), seed=config.seed).flatten(1)
    reference = _gaussian(flow, dataset.split("train"))
    chains = _imputed(config, flow, truth, missing, (1, *test.shape)[-3:])
    guesses = {
        "gaussian": _conditional_mean(reference, truth, missing, config.seed),
        "mean_fill": _mean(dataset.split("train")).expand(truth.shape),
    }
    metrics = {
        **_errors(truth, missing, chains, guesses),
        **_likelihood("test/", flow, test),
        **_likelihood("baseline/gaussian_", reference, test),
    }
    (output / "evaluation.json").write_text(json.dumps(metrics, indent=1) + "\n")
    run.log_metrics(metrics)
    images = {"truth": truth, "missing": missing, "gaussian": guesses["gaussian"]}
    for name, drawn in chains.items():
        images |= {name: drawn[:, 0], f"{name}_mean": drawn.double().mean(1).float()}
    arrays = {name: image.numpy() for name, image in images.items()}
    ends = (0, test.levels - 1) if test.levels else (float(truth.min()), float(truth.max()))
    np.savez_compressed(output / "arrays.npz", **arrays, shape=test.shape, range=ends)


def masks(shape: Sequence[int], count: int, *, seed: int) -> Tensor:
    """Returns boolean masks with shape (count, *shape), true where a pixel is missing.

    Arguments:
        shape: The shape of an image, (C, H, W) or (H, W).
        count: The number of masks; mask i is the same for any number of them.
        seed: Which digits, and in which order.

    Raises:
        BadInput: if ``shape`` is not that of an image.
    """
    if len(shape) not in (2, 3):
        raise BadInput(f"data.source: found rows of shape {tuple(shape)}, expected images")
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images.astype(np.float32))
    order = torch.randperm(len(digits), generator=derive(seed, "masks"))
    chosen = digits[order[torch.arange(count) % len(order)]].unsqueeze(1)
    size = tuple(shape[-2:])
    found = interpolate(chosen, size, mode="bilinear", antialias=True)[:, 0] >= INK
    return found.view(count, *(1,) * (len(shape) - 2), *size).expand(count, *shape)


def _imputed(
    config: ImputeConfig, flow: Flow, truth: Tensor, missing: Tensor, image: Sequence[int]
) -> Drawn:
    """Returns by sampler what it put in, with shape (images, draws, D)."""
    samplers = {
        "adaptive": partial(_adaptive, config, image),
        "langevin": partial(_langevin, config, 0.0),
        "momentum": partial(_langevin, config, MOMENTUM),
    }
    found = {}
    for name, sampler in samplers.items():
        noise = derive(config.seed, "impute", name)
        found[name] = imputation.impute(
            flow, truth, missing, generator=noise, draws=config.draws, sampler=sampler
        ).draws
    return found


def _langevin(
    config: ImputeConfig,
    momentum: float,
    density: LogDensity,
    x: Tensor,
    **chain: Any,  # noqa: ANN401
) -> Tensor:
    """Runs Langevin's diffusion by a step relative to the largest curvature."""
    options = {"step": STEP / _curvature(density, x, **chain), "momentum": momentum}
    return sampling.langevin(density, x, steps=config.steps, **options, **chain)


def _adaptive(
    config: ImputeConfig,
    image: Sequence[int],
    density: LogDensity,
    x: Tensor,
    **chain: Any,  # noqa: ANN401
) -> Tensor:
    """Runs the paper's chain; where its drift ½h² would exceed 1 / L, h² and c shrink alike."""
    h = min(H, math.sqrt(2 / _curvature(density, x, **chain)))
    options = {"h": h, "snr": SNR, "smoothing": SMOOTHING * (h / H) ** 2}
    return sampling.adaptive_langevin(
        density, x, image=image, steps=config.steps, **options, **chain
    )


def _curvature(
    density: LogDensity, x: Tensor, *, generator: torch.Generator, free: Tensor
) -> float:
    start, where = x[:PROBES], free[:PROBES]
    return sampling.largest_curvature(density, start, generator=generator, free=where)


def _gaussian(flow: Flow, train: Split) -> Flow:
    """Returns the Gaussian behind the flow's own logit."""
    preprocessing = flow.spec["preprocessing"]
    chain = {"margin": preprocessing["margin"], "scale": preprocessing["scale"]}
    return gaussian(fit(train, shrinkage=SHRINKAGE, **chain))


def _conditional_mean(reference: Flow, truth: Tensor, missing: Tensor, seed: int) -> Tensor:
    """Returns images with the Gaussian's conditional mean, of the logits, carried back."""
    *_, standard, white = reference.layers
    root = white.weight * standard.log_scale.exp()
    precision = root.mT @ root

    def sampler(density: LogDensity, y: Tensor, **_: object) -> Tensor:
        score = density.score(y)
        for row, slope, free in zip(y, score, missing, strict=True):
            row[free] += torch.linalg.solve(precision[free][:, free], slope[free])
        return y

    noise = derive(seed, "impute", "gaussian")
    made = imputation.impute(reference, truth, missing, generator=noise, draws=1, sampler=sampler)
    return made.draws[:, 0]


def _mean(train: Split) -> Tensor:
    """Returns the training mean of every element, with shape (D,), streamed."""
    return sum(rows.double().sum(0) for rows, _ in train.batches(1024)) / len(train)


def _errors(truth: Tensor, missing: Tensor, chains: Drawn, guesses: Drawn) -> dict[str, float]:
    """Returns root-mean-square errors: of draws, of the mean of draws, and of the guesses."""
    metrics = {"study/missing": float(missing.double().mean())}
    for name, drawn in chains.items():
        target, holes = (one.unsqueeze(1).expand(drawn.shape) for one in (truth, missing))
        metrics |= _error(name, target, drawn, holes)
    means = {f"{name}_mean": drawn.double().mean(1) for name, drawn in chains.items()}
    for name, guess in (*means.items(), *guesses.items()):
        metrics |= _error(name, truth, guess, missing)
    return metrics


def _error(name: str, truth: Tensor, guess: Tensor, missing: Tensor) -> dict[str, float]:
    found = sampling.imputation_error(truth, guess, missing)
    return {f"study/rmse_{name}": found.value, f"study/rmse_{name}_se": found.se}


def _likelihood(prefix: str, flow: Flow, split: Split) -> dict[str, float]:
    score = Likelihood.of(log_probs(flow, split), split.width)
    return {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}
