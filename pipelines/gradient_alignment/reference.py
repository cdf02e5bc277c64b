"""Measures trained flows at noisy test points.

The flows are the reference, with which gradients are compared, and a class-blind density.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ebflow.alignment.metrics import dsm, of_label
from ebflow.alignment.reference import Normalized, Reference, Scores, pooled
from ebflow.checkpoint import load
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.data.dataset import Dataset, StoredSplit
from pipelines.gradient_alignment.config import MeasureConfig
from pipelines.tracking.run import StageRun

CLASS_BLIND = ("gaussian", "flow")  # Names of class-blind densities


def unit_rows(split: StoredSplit) -> Tensor:
    """Returns rows (N, D) in [0, 1]: levels over the largest one, or scaled by the range.

    The range of real features is that of training rows; some test rows may lie outside.
    """
    x, statistics = split.tensor().float(), split.manifest.statistics
    if split.levels is not None:
        return x / (split.levels - 1)
    least, most = (torch.tensor(s, dtype=x.dtype) for s in (statistics.min, statistics.max))
    spread = most - least
    return (x - least) / torch.where(spread > 0, spread, 1.0)


def smoothed(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Returns x + s ε with noise ε."""
    return torch.add(x, normal(x.shape, x, generator), alpha=sigma) if sigma else x


class Points(NamedTuple):
    """Labelled points of a split, with noise."""

    clean: Tensor  # x in [0, 1] with shape (N, D)
    noise: Tensor  # ε with shape (N, D)
    sigma: float  # s
    labels: Tensor  # their classes with shape (N,)

    @property
    def noisy(self) -> Tensor:
        """x + s ε."""
        return torch.add(self.clean, self.noise, alpha=self.sigma)


def of_split(config: MeasureConfig, dataset: Dataset, split: str) -> Points:
    """Returns rows of a split in their order; a random part if it has more than configured."""
    rows = dataset.split(split)
    order = torch.randperm(len(rows), generator=derive(config.seed, "rows", split))
    chosen = order[: config.points].sort().values
    x, labels = unit_rows(rows)[chosen], rows.labels()[chosen]
    noise = normal(x.shape, x, derive(config.seed, "points", split))
    return Points(x, noise, config.noise, labels)


def open_reference(trained: Sequence[Path], dataset: Dataset) -> Reference | None:
    """Returns trained flows, one of each class, with the classes' priors; None without flows."""
    if not trained:
        return None
    priors = dataset.split("train").labels().bincount(minlength=len(trained))
    return Reference([load(folder / "checkpoint") for folder in trained], priors)


def open_blind(
    name: str, all_rows: Sequence[Path], dataset: Dataset, noise: float
) -> Normalized | None:
    """Returns a class-blind density, which can be added to all logits of any classifier.

    ``gaussian`` is the pooled one of all training rows, and ``flow`` that of all rows, the only
    element of ``all_rows``. Other names have none.
    """
    if name == "gaussian":
        return pooled(unit_rows(dataset.split("train")), noise)
    if name == "flow":
        (flow,) = all_rows
        return load(flow / "checkpoint").requires_grad_(False)
    return None


def reference(
    config: MeasureConfig,
    data: Path,
    flows: Sequence[Path],
    all_rows: Sequence[Path],
    *,
    run: StageRun,
) -> None:
    """Writes ``evaluation.json``: the quality of the reference and the class-blind densities.

    ``flows`` are those of each class in turn, and ``all_rows`` has the one of all rows.
    """
    dataset = run.open(config, Dataset(data), "testing")
    densities = open_reference(flows, dataset)
    test, train = (of_split(config, dataset, split) for split in ("test", "train"))
    quality = _quality(test, densities.at(test.noisy), train, densities.at(train.noisy))
    x = test.noisy
    for name in CLASS_BLIND:
        density = open_blind(name, all_rows, dataset, config.noise)
        quality[f"blind/{name}"] = float(density.log_prob(x).mean()) / x.shape[1]
    run.write_metrics(quality)


def _quality(test: Points, scores: Scores, train: Points, fitted: Scores) -> dict[str, float]:
    """Returns log-densities (nats a dimension), Bayes accuracy and DSM checks of a reference."""
    width = test.clean.shape[1]
    own = of_label(scores.classes, test.labels)
    cosines, residual = dsm(own, test.noise, test.sigma)
    marginal = torch.cosine_similarity(scores.marginal, -test.noise)
    return {
        "reference/log_density": float(of_label(scores.log_probs.T, test.labels).mean()) / width,
        "reference/log_density_train": float(of_label(fitted.log_probs.T, train.labels).mean())
        / width,
        "reference/score_norm": float(own.norm(dim=1).mean()),
        "reference/dsm_cos": float(cosines.mean()),
        "reference/dsm_residual": residual.value,
        "reference/dsm_residual_se": residual.se,
        "reference/marginal_dsm_cos": float(marginal.mean()),
        "reference/points": float(len(own)),
        "reference/accuracy": float((scores.posterior.argmax(1) == test.labels).double().mean()),
    }
