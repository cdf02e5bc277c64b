"""The reference flows: their scores at noisy points, and what classifiers are measured beside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ebflow.alignment.logit import Classifier
from ebflow.alignment.metrics import dsm, of_label
from ebflow.alignment.reference import Normalized, Reference, Scores
from ebflow.checkpoint import load
from ebflow.files import save_tensors
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment.config import MeasureConfig
from pipelines.gradient_alignment.unit_rows import unit_rows

FLOWS, POINTS = "flows", "points.safetensors"
GAUSSIAN, FLOW = "gaussian.safetensors", "flow"
"""Class-blind densities: what any classifier's logits can be given without a change of it."""


@dataclass(frozen=True)
class Points:
    """Labelled points of a split, with noise.

    Attributes:
        clean: x in [0, 1] with shape (N, D).
        noise: ε with shape (N, D).
        sigma: s.
        labels: Their classes with shape (N,).
    """

    clean: Tensor
    noise: Tensor
    sigma: float
    labels: Tensor

    @property
    def noisy(self) -> Tensor:
        """x + s ε."""
        return torch.add(self.clean, self.noise, alpha=self.sigma)


def points(config: MeasureConfig, dataset: Dataset, split: str) -> Points:
    """Returns rows of a split in their order, so many drawn at random if it has more."""
    rows = dataset.split(split)
    order = torch.randperm(len(rows), generator=derive(config.seed, "rows", split))
    chosen = order[: config.points].sort().values
    x, labels = unit_rows(rows)[chosen], rows.labels()[chosen]
    noise = normal(x.shape, x, derive(config.seed, "points", split))
    clean, noise, labels = (t.to(config.device) for t in (x, noise, labels))
    return Points(clean, noise, config.noise, labels)


def open_reference(folder: Path, device: str = "cpu") -> Reference:
    """Returns the flows that a reference stage kept, with the priors of their classes."""
    kept = load_file(folder / POINTS)
    flows = [load(folder / FLOWS / str(k)).to(device) for k in range(len(kept["priors"]))]
    return Reference(flows, kept["priors"])


def open_blind(folder: Path, device: str = "cpu") -> dict[str, Normalized]:
    """Returns the class-blind densities that a stage kept, by name: ``gaussian`` and ``flow``."""
    flow = load(folder / FLOW).to(device)
    gaussian = Preprocessing.load(folder / GAUSSIAN).base.to(device, torch.float32)
    return {"gaussian": gaussian, "flow": flow.requires_grad_(False)}


def write_points(folder: Path, found: Points, scores: Scores, priors: Tensor) -> None:
    """Writes the points and the reference's scores there."""
    sigma = torch.tensor(found.sigma, dtype=torch.float64)
    tensors = {**vars(found), **vars(scores), "sigma": sigma, "priors": priors}
    save_tensors({name: t for name, t in tensors.items() if t is not None}, folder / POINTS)


def read_points(folder: Path, device: str = "cpu") -> tuple[Points, Scores]:
    """Returns what ``write_points`` wrote."""
    kept = load_file(folder / POINTS, device=device)
    found = Points(kept["clean"], kept["noise"], float(kept["sigma"]), kept["labels"])
    names = ("marginal", "classes", "posterior", "log_probs")
    return found, Scores(*(kept.get(name) for name in names))


def quality(test: Points, scores: Scores, train: Points, fitted: Scores) -> dict[str, float]:
    """Returns log-densities (nats a dimension), Bayes accuracy and DSM checks of a reference."""
    width = test.clean.shape[1]
    own = scores.marginal if scores.classes is None else of_label(scores.classes, test.labels)
    cosines, residual = dsm(own, test.noise, test.sigma)
    marginal = torch.cosine_similarity(scores.marginal, -test.noise)
    numbers = {
        "reference/log_density": float(own_log_probs(scores, test.labels).mean()) / width,
        "reference/log_density_train": float(own_log_probs(fitted, train.labels).mean()) / width,
        "reference/score_norm": float(own.norm(dim=1).mean()),
        "reference/dsm_cos": float(cosines.mean()),
        "reference/dsm_residual": residual.value,
        "reference/dsm_residual_se": residual.se,
        "reference/marginal_dsm_cos": float(marginal.mean()),
        "reference/points": float(len(own)),
    }
    if scores.posterior is None:
        return numbers
    right = scores.posterior.argmax(1) == test.labels
    return numbers | {"reference/accuracy": float(right.double().mean())}


def blind_quality(blind: Mapping[str, Normalized], test: Points) -> dict[str, float]:
    """Returns the log-densities of class-blind densities, in nats a dimension."""
    x = test.noisy
    return {f"blind/{name}": float(density.log_prob(x).mean()) / x.shape[1]
            for name, density in blind.items()}  # fmt: skip


def own_log_probs(scores: Scores, labels: Tensor) -> Tensor:
    """Returns the log-density of every point's class, or of all rows, with shape (B,)."""
    own = torch.zeros_like(labels) if scores.classes is None else labels
    return scores.log_probs.gather(1, own.unsqueeze(1)).squeeze(1)


Found = dict[str, float | np.ndarray]
"""Numbers, and arrays for figures."""


@dataclass(frozen=True)
class Subject:
    """A classifier to be measured, and what it is measured with.

    Attributes:
        config: What is measured.
        network: The classifier.
        baseline: The one without a regularizer, of the same seed.
        judge: One of another architecture that was trained independently.
        shape: The shape of an example.
        points: Test points.
        scores: The reference's there.
        reference: The reference.
        blind: Class-blind densities by name.
        randomized: The classifier with parameters drawn anew, some draws of each kind.
    """

    config: MeasureConfig
    network: Classifier
    baseline: Classifier
    judge: Classifier
    shape: Sequence[int]
    points: Points
    scores: Scores
    reference: Reference
    blind: Mapping[str, Normalized]
    randomized: Mapping[str, Sequence[Classifier]]

    def draws(self, *purpose: str | int) -> torch.Generator:
        """Returns the random numbers of a purpose, from their start."""
        return derive(self.config.seed, *purpose, device=self.config.device)
