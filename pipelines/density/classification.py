r"""The classifier that a class-conditional flow makes by Bayes' rule.

.. math:: p(k \mid x) = \frac{\pi_k \, p(x \mid k)}{\sum_j \pi_j \, p(x \mid j)}

with the classes' shares :math:`\pi` of the training rows. It is calibrated if the class that it
finds likeliest is right as often as it says: the *calibration error* is the mean over test rows of
the difference between share right and mean confidence in the rows' bin of confidence.

Source: Obtaining Well Calibrated Probabilities Using Bayesian Binning (Naeini, Cooper, Hauskrecht,
2015), AAAI, for the expected calibration error.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ebflow.data.loader import Batch, Batched
from ebflow.evaluation import log_probs
from ebflow.flow import Flow

BINS = 10


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


@dataclass(frozen=True)
class Bins:
    """Rows by how sure the classifier is of the class that it finds likeliest.

    Attributes:
        confidence: The mean probability of that class in each bin, with shape (M,).
        right: The share of rows of which it is the class.
        count: The number of rows; bins without any are left out.
    """

    confidence: Tensor
    right: Tensor
    count: Tensor

    @classmethod
    def of(cls, log_posteriors: Tensor, labels: Tensor) -> "Bins":
        """Returns the rows in ``BINS`` bins of equal width."""
        top, found = log_posteriors.exp().max(1)
        where = (top * BINS).long().clamp(max=BINS - 1)
        sums = torch.zeros(3, BINS, dtype=torch.float64)
        parts = torch.stack([torch.ones_like(top), top, (found == labels).double()])
        count, confidence, right = sums.index_add(1, where, parts.double())
        full = count > 0
        count = count[full]
        return cls(confidence[full] / count, right[full] / count, count.long())

    @property
    def error(self) -> float:
        """The expected calibration error."""
        gaps = (self.confidence - self.right).abs() * self.count
        return float(gaps.sum() / self.count.sum())


@dataclass(frozen=True)
class Classification:
    """How good a classifier is on rows whose classes are known.

    Attributes:
        accuracy: The share of rows whose likeliest class is theirs.
        accuracy_se: Its standard error.
        log_loss: The mean −log p(k | x) of their classes, in nats.
        log_loss_se: Its standard error.
        calibration_error: The expected calibration error.
    """

    accuracy: float
    accuracy_se: float
    log_loss: float
    log_loss_se: float
    calibration_error: float

    @classmethod
    def of(cls, log_posteriors: Tensor, labels: Tensor) -> "Classification":
        """Summarises log p(k | x) with shape (N, K), of rows of classes with shape (N,)."""
        right = (log_posteriors.argmax(1) == labels).double()
        losses = -log_posteriors.gather(1, labels[:, None])[:, 0]
        error = Bins.of(log_posteriors, labels).error
        return cls(*_mean(right), *_mean(losses), error)


def _mean(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))
