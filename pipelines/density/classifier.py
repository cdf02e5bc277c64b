r"""The classifier that a class-conditional flow makes by Bayes' rule, beside its baselines'.

.. math:: p(k \mid x) = \frac{\pi_k \, p(x \mid k)}{\sum_j \pi_j \, p(x \mid j)}

with the classes' shares :math:`\pi` of the training rows. It is calibrated if the class that it
finds likeliest is right as often as it says: the *calibration error* is the mean over test rows of
the difference between share right and mean confidence in the rows' bin of confidence.

Source: Obtaining Well Calibrated Probabilities Using Bayesian Binning (Naeini, Cooper, Hauskrecht,
2015), AAAI, for the expected calibration error.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ebflow.evaluation import log_probs
from ebflow.flow import Flow
from ebflow.tables.batches import Batch, Batched
from pipelines.data.dataset import Dataset
from pipelines.density.likelihoods import prefix
from pipelines.reporting.style import panels

BINS = 10

FILE = "posteriors.npz"
"""File of log p(k | x) and the classes of test rows, of a flow given classes alone."""


@dataclass(frozen=True)
class _As:
    """A split of which every row is given the same context, with shape (C,)."""

    split: Batched
    context: Tensor

    def batches(self, size: int) -> Iterator[Batch]:
        """Yields the rows in order."""
        for x, _ in self.split.batches(size):
            yield Batch(x, self.context.expand(len(x), -1))


def log_posteriors(flow: Flow, split: Batched, shares: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
    """Returns log p(k | x) of every row of a split, with shape (N, K); K evaluations of it.

    Arguments:
        flow: A flow whose context is one of K classes, one-hot.
        split: The rows.
        shares: π, with shape (K,).
        options: Those of ``log_probs``; the noise of a row is the same for all classes.
    """
    one_hot = torch.eye(len(shares), dtype=torch.float64)
    columns = [log_probs(flow, _As(split, context), **options) for context in one_hot]
    return (torch.stack(columns, 1) + shares.double().log()).log_softmax(1)


class Bins(NamedTuple):
    """Rows by how sure the classifier is of the class that it finds likeliest.

    Attributes:
        confidence: The mean probability of that class in each bin, with shape (M,).
        right: The share of rows of which it is the class.
        count: The number of rows; bins without any are left out.
    """

    confidence: Tensor
    right: Tensor
    count: Tensor


def binned(log_posteriors: Tensor, labels: Tensor) -> Bins:
    """Returns rows in ``BINS`` bins of equal width."""
    top, found = log_posteriors.exp().max(1)
    where = (top * BINS).long().clamp(max=BINS - 1)
    parts = torch.stack([torch.ones_like(top), top, (found == labels).double()]).double()
    sums = torch.zeros(3, BINS, dtype=torch.float64).index_add(1, where, parts)
    count, confidence, right = sums[:, sums[0] > 0]
    return Bins(confidence / count, right / count, count.long())


def measures(log_posteriors: Tensor, labels: Tensor) -> dict[str, float]:
    """Returns how good log p(k | x) with shape (N, K) is, of rows of classes with shape (N,).

    ``accuracy`` (share), ``log_loss`` (nats), both with their standard errors ``…_se``, NaN of a
    single row, and ``calibration_error``.
    """
    rows = {
        "accuracy": (log_posteriors.argmax(1) == labels).double(),
        "log_loss": -log_posteriors.gather(1, labels[:, None])[:, 0],
    }
    found = {name: float(values.mean()) for name, values in rows.items()}
    errors = {f"{name}_se": _error(values) for name, values in rows.items()}
    bins = binned(log_posteriors, labels)
    gaps = ((bins.confidence - bins.right).abs() * bins.count).sum()
    return {**found, **errors, "calibration_error": float(gaps / len(labels))}


def _error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def measured(
    densities: Mapping[str, Flow], dataset: Dataset, output: Path, options: Mapping[str, Any]
) -> dict[str, float]:
    """Returns the metrics of each density's classifier on the test split; writes the flow's file.

    Nothing where classes are not the only context.

    Arguments:
        densities: The flow and its baselines, by name.
        dataset: The prepared data.
        output: The folder of the file.
        options: Of ``log_probs``.
    """
    given = dataset.manifest.context
    if given is None or given.label is None or len(given.columns) > 1:
        return {}
    test, shares, metrics = dataset.split("test"), torch.tensor(given.mean), {}
    labels = test.labels()
    for name, density in densities.items():
        found = log_posteriors(density, test, shares, **options)
        numbers = measures(found, labels)
        metrics |= {f"{prefix(name)}{key}": value for key, value in numbers.items()}
        if name == "flow":
            arrays = {"log_posteriors": found.numpy(), "labels": labels.numpy()}
            np.savez(output / FILE, **arrays)
    return metrics


def figures(evaluated: Path) -> dict[str, Figure]:
    """Returns the shares of right answers over confidence, beside the rows of each confidence.

    By name; none where the folder has no such file.
    """
    if not (evaluated / FILE).exists():
        return {}
    with np.load(evaluated / FILE) as found:
        posteriors, labels = (torch.from_numpy(found[k]) for k in ("log_posteriors", "labels"))
    bins = binned(posteriors, labels)
    figure, (left, right) = panels(2)
    error = (bins.right * (1 - bins.right) / bins.count).sqrt()
    left.plot([0, 1], [0, 1], color="black", lw=0.8, label="calibrated")
    left.errorbar(bins.confidence, bins.right, error, marker="o", capsize=3, label="flow")
    left.set(xlabel="probability of the likeliest class", ylabel="share right", ylim=(-0.05, 1.05))
    left.legend()
    right.bar(bins.confidence, bins.count, 0.06)
    right.set(xlabel="probability of the likeliest class", ylabel="test rows", yscale="log")
    return {"classes": figure}
