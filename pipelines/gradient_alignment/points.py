"""Points at which gradients are compared, and the reference's scores there, as files."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ebflow.alignment.reference import Normalized, Reference, Scores
from ebflow.checkpoint import load
from ebflow.files import save_tensors
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.data.dataset import Dataset, StoredSplit
from pipelines.gradient_alignment.config import MeasureConfig

FLOWS, POINTS = "flows", "points.safetensors"
"""Files of the reference."""

GAUSSIAN, FLOW = "gaussian.safetensors", "flow"
"""Files of the class-blind densities, which can be added to all logits of any classifier."""


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


def of_split(config: MeasureConfig, dataset: Dataset, split: str) -> Points:
    """Returns rows of a split in their order; a random part if it has more than configured."""
    rows = dataset.split(split)
    order = torch.randperm(len(rows), generator=derive(config.seed, "rows", split))
    chosen = order[: config.points].sort().values
    x, labels = unit_rows(rows)[chosen], rows.labels()[chosen]
    noise = normal(x.shape, x, derive(config.seed, "points", split))
    clean, noise, labels = (t.to(config.device) for t in (x, noise, labels))
    return Points(clean, noise, config.noise, labels)


def write_points(folder: Path, points: Points, scores: Scores, priors: Tensor) -> None:
    """Writes the points and the reference's scores there."""
    sigma = torch.tensor(points.sigma, dtype=torch.float64)
    tensors = {**vars(points), **vars(scores), "sigma": sigma, "priors": priors}
    save_tensors({name: t for name, t in tensors.items() if t is not None}, folder / POINTS)


def read_points(folder: Path, device: str = "cpu") -> tuple[Points, Scores]:
    """Returns the points and the reference's scores there."""
    stored = load_file(folder / POINTS, device=device)
    sigma = float(stored["sigma"])
    names = ("marginal", "classes", "posterior", "log_probs")
    scores = Scores(*map(stored.get, names))
    return Points(stored["clean"], stored["noise"], sigma, stored["labels"]), scores


def open_reference(folder: Path, device: str = "cpu") -> Reference:
    """Returns the reference flows, with the priors of their classes."""
    priors = load_file(folder / POINTS)["priors"]
    flows = [load(folder / FLOWS / str(k)).to(device) for k in range(len(priors))]
    return Reference(flows, priors)


def open_blind(folder: Path, device: str = "cpu") -> dict[str, Normalized]:
    """Returns the class-blind densities: ``gaussian`` and ``flow``."""
    flow = load(folder / FLOW).to(device)
    gaussian = Preprocessing.load(folder / GAUSSIAN).base.to(device, torch.float32)
    return {"gaussian": gaussian, "flow": flow.requires_grad_(False)}


def own_log_probs(scores: Scores, labels: Tensor) -> Tensor:
    """Returns the log-density of each point's class, or of all rows, with shape (B,)."""
    own = torch.zeros_like(labels) if scores.classes is None else labels
    return scores.log_probs.gather(1, own.unsqueeze(1)).squeeze(1)
