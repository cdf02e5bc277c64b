"""From a trained flow to masked pixels of test images that it fills, beside simpler means.

A mask has the shape of an image, (C, H, W) or (H, W). It is True where handwriting covers the
image, in all colours alike: digits bundled with scikit-learn, scaled to H × W by bilinear
interpolation, where the ink is at least half of the strongest.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, whose masks are digits of MNIST.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ebflow import sampling
from ebflow.checkpoint import load
from ebflow.density import LogDensity
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing, density
from ebflow.randomness import generator as derive
from ebflow.sampling import (
    Sampler,
    adaptive_langevin,
    imputation_error,
    langevin,
    largest_curvature,
)
from ebflow.tables.batches import Split
from pipelines.data.dataset import Dataset
from pipelines.paper.config import InpaintConfig
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import GAUSSIAN

ARRAYS = "arrays.npz"

STEP = 1.0  # Langevin's step times the largest curvature of −log p: stable below 2
MOMENTUM = 0.95  # Share of the velocity that a step of Langevin's diffusion with momentum keeps

# The paper's chain: h in units of the logits, the factor of its noise, the weight of the blurred
# image. Where its drift is not stable, h is less, and the weight shrinks with h².
H, SNR, SMOOTHING = 0.5, 0.1, 0.05

PROBES = 16  # Chains at whose starts the largest curvature is sought
INK = 8.0  # Half of the strongest ink of scikit-learn's digits
BATCH = 1024  # Rows at a time


def inpaint(
    config: InpaintConfig, data: Path, preprocessed: Path, trained: Path, *, run: StageRun
) -> None:
    """Writes ``evaluation.json``, errors of filled test images, and ``arrays.npz``.

    Errors are in the units of the data, grey levels, for each missing pixel and colour. Besides
    the chains there are the training mean of every pixel, and the conditional mean of a
    full-covariance Gaussian of the logits. Either is one guess and no sample. It compares with
    the mean of the samples of a chain.

    The arrays have raw images with shape (images, D), ``missing``, the range of black and white,
    and sums of squared errors of each image, by the Gaussian and by the mean of samples.
    """
    dataset = run.open(config, Dataset(data), "testing")
    flow = load(trained / "checkpoint")
    test, train = map(dataset.split, ("test", "train"))
    shape = dataset.manifest.shape
    truth = test.tensor()[: config.images].reshape(-1, math.prod(shape))
    missing = masks(shape, len(truth), seed=config.seed).flatten(1)
    samples = _sampled(config, flow, truth, missing, (1, *shape)[-3:], run)
    ways = {name: found for name, found in samples.items()}
    ways |= {
        f"{name}_mean": found.double().mean(1, keepdim=True) for name, found in samples.items()
    }
    gaussian = density(Preprocessing.load(preprocessed / GAUSSIAN))
    ways["gaussian"] = conditional_mean(gaussian, truth, missing, config.seed)[:, None]
    ways["mean_fill"] = _mean(train).expand(len(truth), 1, -1)
    metrics = {"study/missing": float(missing.double().mean()), **_errors(truth, missing, ways)}
    run.write_metrics(metrics)
    images = {name: ways[name][:, 0] for name in (*samples, *MEANS)}
    levels = dataset.manifest.levels
    ends = (0, levels - 1) if levels else (float(truth.min()), float(truth.max()))
    np.savez_compressed(
        run.output / ARRAYS,
        truth=truth.numpy(),
        missing=missing.numpy(),
        shape=shape,
        range=ends,
        **{name: image.numpy() for name, image in images.items()},
        squares_gaussian=_squares(truth, missing, ways["gaussian"]),
        squares_momentum=squared_errors_of_means(truth, missing, samples["momentum"]),
    )


# Ways of filling that are no chains.
MEANS = ("gaussian", "mean_fill", "momentum_mean")


def masks(shape: Sequence[int], count: int, *, seed: int) -> Tensor:
    """Returns boolean masks with shape (count, *shape), True where a pixel is missing.

    Arguments:
        shape: The shape of an image, (C, H, W) or (H, W).
        count: The number of masks; mask i is the same for every number of them.
        seed: The seed of the digits' order.
    """
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images.astype(np.float32))
    order = torch.randperm(len(digits), generator=derive(seed, "masks"))
    chosen = digits[order[torch.arange(count) % len(order)]].unsqueeze(1)
    size = tuple(shape[-2:])
    covered = interpolate(chosen, size, mode="bilinear", antialias=True)[:, 0] >= INK
    ones = (1,) * (len(shape) - 2)
    return covered.view(count, *ones, *size).expand(count, *shape)


def _sampled(
    config: InpaintConfig,
    flow: Flow,
    truth: Tensor,
    missing: Tensor,
    image: Sequence[int],
    run: StageRun,
) -> dict[str, Tensor]:
    """Returns samples (images, K, D) of each chain."""
    events = truth.view(-1, *flow.event_shape)
    found = {}
    for number, (name, sampler) in enumerate(_chains(config.steps, image).items()):
        run.reporter.progress(number / 3, f"fills by the chain {name}")
        made = sampling.inpaint(
            flow,
            events,
            missing.view(events.shape),
            generator=derive(config.seed, "inpaint", name),
            sampler=sampler,
            samples=config.samples,
        )
        found[name] = made.samples.flatten(2)
    return found


def _chains(steps: int, image: Sequence[int]) -> dict[str, Sampler]:
    """Returns the chains: the paper's, and Langevin's diffusion without and with momentum."""

    def curvature(
        density: LogDensity, x: Tensor, generator: torch.Generator, free: Tensor
    ) -> float:
        return largest_curvature(density, x[:PROBES], generator=generator, free=free[:PROBES])

    def diffusion(momentum: float, density: LogDensity, x: Tensor, **chain: Any) -> Tensor:  # noqa: ANN401
        step = STEP / curvature(density, x, **chain)
        return langevin(density, x, step=step, steps=steps, momentum=momentum, **chain)

    def adaptive(density: LogDensity, x: Tensor, **chain: Any) -> Tensor:  # noqa: ANN401
        h = min(H, math.sqrt(2 / curvature(density, x, **chain)))
        options = {"h": h, "snr": SNR, "smoothing": SMOOTHING * (h / H) ** 2, "image": image}
        return adaptive_langevin(density, x, steps=steps, **options, **chain)

    return {
        "adaptive": adaptive,
        "langevin": partial(diffusion, 0.0),
        "momentum": partial(diffusion, MOMENTUM),
    }


def conditional_mean(gaussian: Flow, x: Tensor, missing: Tensor, seed: int) -> Tensor:
    """Returns rows (N, D) with a Gaussian's conditional mean of the missing elements.

    The mean is one of the logits, if the data have levels; it is transformed to raw data. Cost:
    O(M³) per row for M missing elements, and O(D³) once.

    Arguments:
        gaussian: The density of ``preprocessing.density`` of a whitening.
        x: Raw rows with shape (N, D).
        missing: True where an element is missing, with shape (N, D).
        seed: The seed of the dequantization noise.
    """
    leading = list(takewhile(lambda layer: layer.pixelwise, gaussian.layers))
    elementwise = Flow((x.shape[1],), leading, n_preprocessing=len(leading)).double()
    noise = derive(seed, "inpaint", "gaussian")
    with torch.no_grad():
        y = elementwise.preprocess(x.masked_fill(missing, 0), generator=noise)
        score = gaussian.after(len(leading)).score(y)
        root = _root(gaussian, len(leading))
        precision = root.mT @ root
        for row, slope, free in zip(y, score, missing, strict=True):
            row[free] += torch.linalg.solve(precision[free][:, free], slope[free])
        return torch.where(missing, elementwise.from_latent(y).to(torch.float64), x.double())


def _root(gaussian: Flow, leading: int) -> Tensor:
    """Returns the matrix (D, D) of the linear layers that whiten."""
    unit = torch.eye(math.prod(gaussian.event_shape), dtype=torch.float64)
    origin = unit.new_zeros(1, len(unit))
    layers = list(gaussian.layers)[leading:]
    for layer in layers:
        unit, origin = layer(unit), layer(origin)
    return (unit - origin).mT


def _mean(train: Split) -> Tensor:
    """Returns the training mean of every element, with shape (D,)."""
    total = sum(rows.double().flatten(1).sum(0) for rows, _ in train.batches(BATCH))
    return total / len(train)


def _squares(truth: Tensor, missing: Tensor, found: Tensor) -> np.ndarray:
    """Returns the sum of squared errors of each image's missing elements, the mean over copies."""
    errors = (found.double() - truth[:, None].double()) * missing[:, None]
    return errors.square().sum(2).mean(1).numpy()


def squared_errors_of_means(truth: Tensor, missing: Tensor, samples: Tensor) -> np.ndarray:
    """Returns an unbiased estimate of each image's squared error of the mean of a chain.

    The mean of K samples has an error that is larger by their variance over K, which is
    subtracted. One image's estimate may be negative.

    Arguments:
        truth: Raw images with shape (N, D).
        missing: True where an element is missing, with shape (N, D).
        samples: With shape (N, K, D), K ≥ 2.
    """
    mean = samples.double().mean(1, keepdim=True)
    variance = samples.double().var(1) / samples.shape[1]
    return _squares(truth, missing, mean) - (variance * missing).sum(1).numpy()


def _errors(truth: Tensor, missing: Tensor, ways: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns root-mean-square errors by way of filling, of images (N, K, D)."""
    metrics = {}
    for name, found in ways.items():
        target, holes = (one.unsqueeze(1).expand(found.shape) for one in (truth, missing))
        error = imputation_error(target, found, holes)
        metrics |= {f"study/rmse_{name}": error.value, f"study/rmse_{name}_se": error.se}
    return metrics
