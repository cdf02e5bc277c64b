"""Data behind a fitted chain, and densities of them as densities of the raw rows.

A peer so has the same dequantisation, by the same draws, and the same logit as a flow; its
likelihood is in units of the raw data.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ebflow.bases import Base
from ebflow.data.loader import Dataset
from ebflow.evaluation import log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import Generator, RowGenerator

Values = Callable[[Tensor], Tensor]
"""From rows behind the chain, with shape (B, D), to their log-densities, with shape (B,)."""


class Point(NamedTuple):
    """Where a training stood: steps, training seconds, validation NLL."""

    step: int
    seconds: float
    nll: float


@dataclass
class Fitted:
    """A fitted peer.

    Attributes:
        values: Its log-density, of the best by validation.
        method: What was fitted, and how; one line.
        curve: The validations, in order.
    """

    values: Values
    method: str
    curve: list[Point] = field(default_factory=list)


class Behind:
    """Creates the view of prepared data behind a chain.

    Arguments:
        dataset: The prepared data.
        chain: The chain, fitted to their training split.
    """

    def __init__(self, dataset: Dataset, chain: Preprocessing) -> None:
        self.dataset, self.chain = dataset, chain
        self.width = dataset.manifest.width
        self._preprocessing = self._flow(None)

    def rows(self, split: str, seed: int = 0) -> Tensor:
        """Returns a whole split behind the chain in float64, with shape (N, D)."""
        x = self.dataset.split(split).tensor()
        return self._carried(x, RowGenerator(seed, "peer", split))

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        """Yields random training batches behind the chain without end, in float32."""
        split = self.dataset.split("train")
        batches = split.shuffled(min(size, len(split)), seed=seed)
        for step, batch in enumerate(batches):
            yield self._carried(batch.x, RowGenerator(seed, "peer", step)).float()

    def log_probs(self, split: str, values: Values) -> Tensor:
        """Returns the log-density of a split's raw rows, as ``evaluation.log_probs`` does."""
        return log_probs(self._flow(values), self.dataset.split(split))

    def nll(self, values: Values) -> float:
        """Returns the validation NLL."""
        return -float(self.log_probs("validation", values).mean())

    @torch.no_grad()
    def _carried(self, x: Tensor, noise: Generator) -> Tensor:
        return self._preprocessing.preprocess(x, noise)

    def _flow(self, values: Values | None) -> Flow:
        base = None if values is None else _Given(values)
        return Flow((self.width,), [], base=base).double().preprocessed(self.chain)


class _Given(Base):
    """A density of latents by its values alone."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.values = values

    def energy(self, x: Tensor) -> Tensor:
        return -self.values(x).double()

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        raise NotImplementedError("a peer is not sampled")
