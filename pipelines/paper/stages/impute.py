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

PROBES = 16
"""Chains at whose starts the largest curvature is sought."""

INK = 8.0
"""Half of the strongest ink of scikit-learn's digits."""


def impute(
    config: ImputeConfig, data: Path, trained: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes ``evaluation.json``: errors of imputed test images; and ``arrays.npz``, for pictures.

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
    reference = _gaussian(config, flow, dataset.split("train"))
    chains = _imputed(config, flow, truth, missing, _image(test))
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
    _save(output / "arrays.npz", truth, missing, chains, guesses, test)
    run.log_metrics(metrics)


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
    found = _strokes(shape[-2:], count, seed)
    return found.view(count, *(1,) * (len(shape) - 2), *shape[-2:]).expand(count, *shape)


def _strokes(size: Sequence[int], count: int, seed: int) -> Tensor:
    """Returns the strokes of ``count`` digits in random order, with shape (count, H, W)."""
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images.astype(np.float32))
    order = torch.randperm(len(digits), generator=derive(seed, "masks"))
    chosen = digits[order[torch.arange(count) % len(order)]].unsqueeze(1)
    return interpolate(chosen, tuple(size), mode="bilinear", antialias=True)[:, 0] >= INK


def _image(split: Split) -> tuple[int, int, int]:
    return (1, *split.shape)[-3:]


def _imputed(
    config: ImputeConfig, flow: Flow, truth: Tensor, missing: Tensor, image: tuple[int, int, int]
) -> dict[str, Tensor]:
    """Returns by sampler what it put in, with shape (draws, images, D)."""
    samplers = {
        "adaptive": partial(_adaptive, config, image),
        "langevin": partial(_langevin, config, 0.0),
        "momentum": partial(_langevin, config, config.momentum),
    }
    found = {}
    for name, sampler in samplers.items():
        noise = derive(config.seed, "impute", name)
        made = imputation.impute(
            flow, truth, missing, generator=noise, draws=config.draws, sampler=sampler
        )
        found[name] = made.draws.transpose(0, 1)
    return found


def _langevin(
    config: ImputeConfig,
    momentum: float,
    density: LogDensity,
    x: Tensor,
    *,
    generator: torch.Generator,
    free: Tensor,
) -> Tensor:
    """Runs Langevin's diffusion by a step relative to the largest curvature."""
    step = config.step / _curvature(density, x, free, generator)
    return sampling.langevin(
        density,
        x,
        generator=generator,
        free=free,
        step=step,
        steps=config.steps,
        momentum=momentum,
    )


def _adaptive(
    config: ImputeConfig,
    image: tuple[int, int, int],
    density: LogDensity,
    x: Tensor,
    *,
    generator: torch.Generator,
    free: Tensor,
) -> Tensor:
    """Runs the paper's chain; where its drift ½h² would exceed 1 / L, h² and c shrink alike."""
    stable = math.sqrt(2 / _curvature(density, x, free, generator))
    h = min(config.h, stable)
    return sampling.adaptive_langevin(
        density,
        x,
        generator=generator,
        free=free,
        image=image,
        steps=config.steps,
        h=h,
        snr=config.snr,
        smoothing=config.smoothing * (h / config.h) ** 2,
    )


def _curvature(density: LogDensity, x: Tensor, free: Tensor, noise: torch.Generator) -> float:
    start, where = x[:PROBES], free[:PROBES]
    return sampling.largest_curvature(density, start, generator=noise, free=where)


def _gaussian(config: ImputeConfig, flow: Flow, train: Split) -> Flow:
    """Returns the Gaussian behind the flow's own logit."""
    preprocessing = flow.spec["preprocessing"]
    chain = {"margin": preprocessing["margin"], "scale": preprocessing["scale"]}
    return gaussian(fit(train, shrinkage=config.shrinkage, **chain))


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


def _errors(
    truth: Tensor, missing: Tensor, chains: Mapping[str, Tensor], guesses: Mapping[str, Tensor]
) -> dict[str, float]:
    """Returns root-mean-square errors: of draws, of the mean of draws, and of the guesses."""
    draws = {name: drawn.transpose(0, 1) for name, drawn in chains.items()}
    means = {f"{name}_mean": drawn.double().mean(0) for name, drawn in chains.items()}
    metrics = {"study/missing": float(missing.double().mean())}
    for name, drawn in draws.items():
        holes = missing.unsqueeze(1).expand(drawn.shape)
        target = truth.unsqueeze(1).expand(drawn.shape)
        metrics |= _error(name, target, drawn, holes)
    for name, guess in (*means.items(), *guesses.items()):
        metrics |= _error(name, truth, guess, missing)
    return metrics


def _error(name: str, truth: Tensor, guess: Tensor, missing: Tensor) -> dict[str, float]:
    found = sampling.imputation_error(truth, guess, missing)
    return {f"study/rmse_{name}": found.value, f"study/rmse_{name}_se": found.se}


def _likelihood(prefix: str, flow: Flow, split: Split) -> dict[str, float]:
    score = Likelihood.of(log_probs(flow, split), split.width)
    return {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}


def _save(
    path: Path,
    truth: Tensor,
    missing: Tensor,
    chains: Mapping[str, Tensor],
    guesses: Mapping[str, Tensor],
    split: Split,
) -> None:
    """Saves raw images with shape (images, D), ``missing``, and the values of black and white."""
    levels = split.levels
    white = levels - 1 if levels else float(truth.max())
    black = 0 if levels else float(truth.min())
    images = {"truth": truth, "missing": missing, "gaussian": guesses["gaussian"]}
    for name, drawn in chains.items():
        images |= {name: drawn[0], f"{name}_mean": drawn.double().mean(0).float()}
    arrays = {name: image.numpy() for name, image in images.items()}
    np.savez_compressed(path, **arrays, shape=split.shape, range=(black, white))
