"""From a trained flow to what it puts in place of missing pixels, beside simpler guesses.

A mask has the shape of an image, (C, H, W) or (H, W), and is true where a pixel is missing, in all
colours alike: those that handwriting covers, digits bundled with scikit-learn, scaled to H × W by
bilinear interpolation, where the ink is at least half of the strongest.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ebflow.checkpoint import load
from ebflow.density import LogDensity
from ebflow.evaluation import log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import density, fit
from ebflow.randomness import generator as derive
from ebflow.tables.batches import Split
from pipelines.density.stages.evaluate import likelihood
from pipelines.paper import sampling
from pipelines.paper.config import ImputeConfig
from pipelines.tracking import StageRun
from pipelines.training.stage_reports import Report, begin, reporter, write_metrics

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


def impute(config: ImputeConfig, data: Path, trained: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: errors of imputed test images; and ``arrays.npz``, for pictures.

    Those have raw images with shape (images, D), ``missing``, and the values of black and white.

    Errors are in grey levels (raw units) a missing pixel and colour. Beside the chains stand
    the training mean of every pixel, and the conditional mean of the full-covariance Gaussian
    behind the same logit, each carried back to pixels. Either is one guess and no draw: what a
    chain is to be compared with in this is the mean of its draws.
    """
    dataset = begin(config, config.threads, data, run, "testing")
    flow, test, train = load(trained / "checkpoint"), *map(dataset.split, ("test", "train"))
    truth = test.tensor()[: config.images]
    missing = masks(test.shape, len(truth), seed=config.seed).flatten(1)
    reference = _gaussian(flow, train)
    chains = _imputed(config, flow, truth, missing, (1, *test.shape)[-3:], reporter(run.work))
    guess = _conditional_mean(reference, truth, missing, config.seed)
    put = {
        **chains,
        **{f"{name}_mean": drawn.double().mean(1, keepdim=True) for name, drawn in chains.items()},
        "gaussian": guess,
        "mean_fill": _mean(train).expand(guess.shape),
    }
    metrics = {
        "study/missing": float(missing.double().mean()),
        **_errors(truth, missing, put),
        **likelihood("test/", log_probs(flow, test), test.width),
        **likelihood("baseline/gaussian_", log_probs(reference, test), test.width),
    }
    write_metrics(metrics, run)
    images = {"truth": truth, "missing": missing, "gaussian": guess[:, 0]}
    images |= {name: drawn[:, 0] for name, drawn in chains.items()}
    arrays = {name: image.numpy() for name, image in images.items()}
    ends = (0, test.levels - 1) if test.levels else (float(truth.min()), float(truth.max()))
    np.savez_compressed(run.output / "arrays.npz", **arrays, shape=test.shape, range=ends)


def masks(shape: Sequence[int], count: int, *, seed: int) -> Tensor:
    """Returns boolean masks with shape (count, *shape), true where a pixel is missing.

    Arguments:
        shape: The shape of an image, (C, H, W) or (H, W).
        count: The number of masks; mask i is the same for any number of them.
        seed: Which digits, and in which order.
    """
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images.astype(np.float32))
    order = torch.randperm(len(digits), generator=derive(seed, "masks"))
    chosen = digits[order[torch.arange(count) % len(order)]].unsqueeze(1)
    size = tuple(shape[-2:])
    found = interpolate(chosen, size, mode="bilinear", antialias=True)[:, 0] >= INK
    return found.view(count, *(1,) * (len(shape) - 2), *size).expand(count, *shape)


def _imputed(
    config: ImputeConfig,
    flow: Flow,
    truth: Tensor,
    missing: Tensor,
    image: Sequence[int],
    report: Report,
) -> dict[str, Tensor]:
    """Returns by sampler what it put in, with shape (images, draws, D); tells which one does.

    Langevin's diffusion has a step relative to the largest curvature L. Of the paper's chain,
    where its drift ½h² would exceed 1 / L, h² and c shrink alike.
    """

    def curvature(
        density: LogDensity, x: Tensor, generator: torch.Generator, free: Tensor
    ) -> float:
        few, where = x[:PROBES], free[:PROBES]
        return sampling.largest_curvature(density, few, generator=generator, free=where)

    def langevin(momentum: float, density: LogDensity, x: Tensor, **chain: Any) -> Tensor:  # noqa: ANN401
        options = {"step": STEP / curvature(density, x, **chain), "momentum": momentum}
        return sampling.langevin(density, x, steps=config.steps, **options, **chain)

    def adaptive(density: LogDensity, x: Tensor, **chain: Any) -> Tensor:  # noqa: ANN401
        h = min(H, math.sqrt(2 / curvature(density, x, **chain)))
        options = {"h": h, "snr": SNR, "smoothing": SMOOTHING * (h / H) ** 2, "image": image}
        return sampling.adaptive_langevin(density, x, steps=config.steps, **options, **chain)

    samplers = {
        "adaptive": adaptive,
        "langevin": partial(langevin, 0.0),
        "momentum": partial(langevin, MOMENTUM),
    }
    found = {}
    for number, (name, sampler) in enumerate(samplers.items()):
        report(number / len(samplers), f"draws by the {name} chain")
        options = {"generator": derive(config.seed, "impute", name), "sampler": sampler}
        found[name] = sampling.impute(flow, truth, missing, draws=config.draws, **options)
    return found


def _gaussian(flow: Flow, train: Split) -> Flow:
    """Returns the Gaussian behind the flow's own logit."""
    preprocessing = flow.spec["preprocessing"]
    chain = {"margin": preprocessing["margin"], "scale": preprocessing["scale"]}
    return density(fit(train, shrinkage=SHRINKAGE, **chain))


def _conditional_mean(reference: Flow, truth: Tensor, missing: Tensor, seed: int) -> Tensor:
    """Returns images with the Gaussian's conditional mean, of the logits, carried back.

    Their shape is (images, 1, D).
    """
    *_, standard, white = reference.layers
    root = white.weight * standard.log_scale.exp()
    precision = root.mT @ root

    def sampler(density: LogDensity, y: Tensor, **_: object) -> Tensor:
        score = density.score(y)
        for row, slope, free in zip(y, score, missing, strict=True):
            row[free] += torch.linalg.solve(precision[free][:, free], slope[free])
        return y

    noise = derive(seed, "impute", "gaussian")
    return sampling.impute(reference, truth, missing, generator=noise, draws=1, sampler=sampler)


def _mean(train: Split) -> Tensor:
    """Returns the training mean of every element, with shape (D,), streamed."""
    return sum(rows.double().sum(0) for rows, _ in train.batches(1024)) / len(train)


def _errors(truth: Tensor, missing: Tensor, put: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns root-mean-square errors of what was put in, by name; with shape (images, K, D)."""
    metrics = {}
    for name, made in put.items():
        target, holes = (one.unsqueeze(1).expand(made.shape) for one in (truth, missing))
        found = sampling.imputation_error(target, made, holes)
        metrics |= {f"study/rmse_{name}": found.value, f"study/rmse_{name}_se": found.se}
    return metrics
