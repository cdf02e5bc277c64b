"""The reference flows: their scores at noisy test points, and how good they are."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ebflow import mixtures
from ebflow.alignment.metrics import cosine, dsm, of_label
from ebflow.alignment.reference import Normalised, Reference, Scores
from ebflow.alignment.rows import unit_rows
from ebflow.checkpoint import load
from ebflow.data.loader import Dataset
from ebflow.randomness import generator as derive
from ebflow.randomness import normal

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

    def to(self, device: str) -> "Points":
        """Returns the points on a device."""
        clean, noise, labels = (t.to(device) for t in (self.clean, self.noise, self.labels))
        return Points(clean, noise, self.sigma, labels)


def points(dataset: Dataset, split: str, count: int, sigma: float, seed: int) -> Points:
    """Returns rows of a split in their order, ``count`` drawn at random if it has more."""
    rows = dataset.split(split)
    x, labels = unit_rows(rows), rows.labels()
    chosen = torch.randperm(len(x), generator=derive(seed, "rows", split))[:count].sort().values
    noise = normal(x[chosen].shape, x, derive(seed, "points", split))
    return Points(x[chosen], noise, sigma, labels[chosen])


def open_reference(folder: Path, device: str = "cpu") -> Reference:
    """Returns the flows that a reference stage kept, with the priors of their classes."""
    kept = load_file(folder / POINTS)
    flows = [load(folder / FLOWS / str(k)).to(device) for k in range(len(kept["priors"]))]
    return Reference(flows, kept["priors"])


def open_blind(folder: Path, device: str = "cpu") -> dict[str, Normalised]:
    """Returns the class-blind densities that a stage kept, by name: ``gaussian`` and ``flow``."""
    gaussian, flow = mixtures.load(folder / GAUSSIAN).to(device), load(folder / FLOW).to(device)
    return {"gaussian": gaussian, "flow": flow.requires_grad_(False)}


def write_points(folder: Path, found: Points, scores: Scores, priors: Tensor) -> None:
    """Writes the points and the reference's scores there."""
    tensors = {"clean": found.clean, "noise": found.noise, "labels": found.labels,
               "sigma": torch.tensor(found.sigma, dtype=torch.float64), "priors": priors,
               "marginal": scores.marginal, "classes": scores.classes,
               "posterior": scores.posterior, "log_probs": scores.log_probs}  # fmt: skip
    known = {name: t.contiguous() for name, t in tensors.items() if t is not None}
    save_file(known, folder / POINTS)


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
    numbers = {
        "reference/log_density": float(_own_log_prob(scores, test.labels).mean()) / width,
        "reference/log_density_train": float(_own_log_prob(fitted, train.labels).mean()) / width,
        "reference/score_norm": float(own.norm(dim=1).mean()),
        "reference/dsm_cos": float(cosines.mean()),
        "reference/dsm_residual": residual.value,
        "reference/dsm_residual_se": residual.se,
        "reference/marginal_dsm_cos": float(cosine(scores.marginal, -test.noise).mean()),
        "reference/points": float(len(own)),
    }
    if scores.posterior is None:
        return numbers
    right = scores.posterior.argmax(1) == test.labels
    return numbers | {"reference/accuracy": float(right.double().mean())}


def _own_log_prob(scores: Scores, labels: Tensor) -> Tensor:
    if scores.classes is None:
        return scores.log_probs.squeeze(1)
    return scores.log_probs[torch.arange(len(labels)), labels]
