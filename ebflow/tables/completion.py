"""What rows lack, filled in before there is a flow."""

__all__ = ["Completed", "Gaussian", "Law", "completed"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from ..randomness import Generator, RowGenerator, generator, normal
from .batches import Batch, Split
from .rows import Rows

ROWS, NUMBERS = 5_000, 1e9
"""Rows of the maximization at most, and of rows times D³; never fewer than 2 D rows."""

ITERATIONS = 25
"""Of the maximization."""

RIDGE = 1e-3
"""Share of the identity in the covariance of the scores."""

CHUNK = 1 << 22
"""Most numbers of the matrices of a chunk of rows."""


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian of greatest likelihood given what is observed of some rows, nearly.

    Attributes:
        mean: With shape (D,), in float64.
        covariance: With shape (D, D).
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, z: Tensor) -> "Gaussian":
        """Fits it to rows (N, D) of columns of about unit scale, NaN where an entry is missing.

        Cost: O(D³) a row and iteration.
        """
        found = cls(z.new_zeros(z.shape[1]), torch.eye(z.shape[1]).to(z))
        for _ in range(ITERATIONS):
            found = found._maximized(z)
        return found

    def expected(self, z: Tensor) -> Tensor:
        """Returns rows (N, D) with the conditional means of their missing entries."""
        seen = ~z.isnan()
        away = torch.where(seen, z - self.mean, 0.0)
        return torch.where(seen, z, self.mean + self._carried(seen, away))

    def drawn(self, z: Tensor, noise: Generator) -> Tensor:
        """Returns rows (N, D) with their missing entries drawn from their conditional law."""
        seen = ~z.isnan()
        whole = self.mean + normal(z.shape, z, noise) @ torch.linalg.cholesky(self.covariance).mT
        return torch.where(seen, z, whole + self._carried(seen, torch.where(seen, z - whole, 0.0)))

    def _maximized(self, z: Tensor) -> "Gaussian":
        """Returns what one iteration makes of it."""
        parts = z.split(_chunk(z.shape[1]))
        whole = torch.cat([self.expected(rows) for rows in parts])
        spread = sum(self._spread(~rows.isnan()) for rows in parts)
        mean = whole.mean(0)
        centred = whole - mean
        found = (centred.mT @ centred + spread) / len(z)
        return Gaussian(mean, (1 - RIDGE) * found + RIDGE * torch.eye(len(mean)).to(found))

    def _spread(self, seen: Tensor) -> Tensor:
        """Returns the sum of the conditional covariances of what rows lack."""
        cross = self.covariance * seen.unsqueeze(1)
        rest = self.covariance - cross @ self._solved(seen, cross.mT)
        return (rest * (~seen).unsqueeze(1) * (~seen).unsqueeze(2)).sum(0)

    def _carried(self, seen: Tensor, away: Tensor) -> Tensor:
        """Returns Σ_{·o} Σ_oo⁻¹ of deviations (B, D) that are 0 where nothing is seen."""
        return (self.covariance @ self._solved(seen, away.unsqueeze(2))).squeeze(2)

    def _solved(self, seen: Tensor, columns: Tensor) -> Tensor:
        """Returns Σ_oo⁻¹ of columns (B, D, R), by Cholesky's factors.

        PyTorch's LU of several large matrices by several threads is wrong
        (pytorch/pytorch#141358).
        """
        return torch.cholesky_solve(columns, torch.linalg.cholesky(self._block(seen)))

    def _block(self, seen: Tensor) -> Tensor:
        """Returns Σ_oo of every row with shape (B, D, D), the identity where nothing is seen."""
        both = seen.unsqueeze(1) & seen.unsqueeze(2)
        return torch.where(both, self.covariance, torch.eye(len(self.mean)).to(self.covariance))


@dataclass(frozen=True)
class Law:
    r"""A Gaussian of the columns' ranks, from which missing entries are drawn.

    Column by column, the observed values are carried to normal scores, :math:`\Phi^{-1}` of their
    ranks. Mean and covariance of the scores are those of greatest likelihood given what is
    observed, by expectation maximization; missing scores are drawn from their conditional law and
    carried back to values that the column has: integers stay integers, and nothing leaves its
    column's range.

    Source: Statistical Analysis with Missing Data (Little and Rubin, 2019), 11.2, for the
    maximization; Extending the Rank Likelihood for Semiparametric Copula Estimation (Hoff,
    2007) for the law.

    Attributes:
        values: The observed values of each column, ascending.
        scores: The law of the scores.
    """

    values: tuple[Tensor, ...]
    scores: Gaussian

    @classmethod
    def of_split(cls, split: Split, seed: int = 0) -> "Law":
        """Fits the law to the rows of a split, their contexts beside them; as ``of``."""
        return cls.of(_whole(split), seed)

    @classmethod
    def of(cls, x: Tensor, seed: int = 0) -> "Law":
        """Fits the law to rows with shape (N, D), NaN where an entry is missing.

        Cost: O(D³) a row and iteration.

        Raises:
            BadInput: If a column has no value.
        """
        columns = tuple(column[~column.isnan()].sort().values for column in x.mT)
        for k, column in enumerate(columns):
            if not len(column):
                raise BadInput(f"x, feature {k}: found no value in {len(x)} rows, expected some")
        width = x.shape[1]
        most = max(2 * width, min(ROWS, int(NUMBERS / width**3)))
        order = torch.randperm(len(x), generator=generator(seed, "missing", "rows"))
        return cls(columns, Gaussian.of(_scores(columns, x[order[:most]])))

    def complete(self, x: Tensor, seed: int, *path: str | int) -> Tensor:
        """Returns rows (N, D) with their missing entries drawn; the noise is the row's own.

        Arguments:
            x: The rows, NaN where an entry is missing.
            seed: The seed.
            path: What the noise is for.
        """
        found, first = [], 0
        for rows in x.split(_chunk(x.shape[1])):
            noise = RowGenerator(seed, "missing", *path, first=first)
            drawn = self._values(self.scores.drawn(_scores(self.values, rows), noise))
            found.append(torch.where(rows.isnan(), drawn.to(x), rows))
            first += len(rows)
        return torch.cat(found)

    def _values(self, z: Tensor) -> Tensor:
        u = torch.special.ndtr(z)
        columns = zip(self.values, u.mT, strict=True)
        return torch.stack(
            [v[(p * len(v)).long().clamp(max=len(v) - 1)].double() for v, p in columns], 1
        )


ENOUGH = 50
"""Complete validation rows from which the others are left out."""


def completed(splits: Sequence[Rows], seed: int) -> Sequence[Split]:
    """Returns training and validation rows without missing values.

    Missing values of the training rows are sampled, to be sampled again. The complete validation
    rows decide when to stop; if they are few, all of them are completed once.
    """
    if not any(bool(split.resident.x.isnan().any()) for split in splits):
        return splits
    law = Law.of_split(splits[0], seed)
    return [
        Completed(splits[0], law, seed),
        *(_complete(split, law, seed) for split in splits[1:]),
    ]


def _complete(split: Rows, law: "Law", seed: int) -> Split:
    rows = (~split.resident.x.isnan().any(1)).nonzero().flatten()
    if len(rows) < min(ENOUGH, len(split)):
        return Completed(split, law, seed)
    batch = split.resident.take(rows)
    return Rows(*batch, shape=split.shape, name=split.name, categories=split.categories)


class Completed(Split):
    """Creates a split in memory whose missing entries are filled in, to be filled in again.

    Arguments:
        split: The split, NaN where an entry is missing.
        law: What they are drawn from at first, given the contexts if there are any.
        seed: Where the draws come from.

    Raises:
        BadInput: If the split does not fit into the memory for one.
    """

    def __init__(self, split: Split, law: Law, seed: int) -> None:
        keys = ("shape", "dtype", "levels", "where", "context_width", "categories")
        options = {key: getattr(split, key) for key in keys}
        super().__init__(split.name, parts=[len(split)], **options)
        self.split = split
        self.missing, context = split.tensor().isnan(), split.context
        x = law.complete(_whole(split), seed, split.name)[:, : split.width]
        self.resident = Batch(x.to(self.dtype).contiguous(), context)

    @property
    def content(self) -> Batch:
        """The rows as they are, missing entries included."""
        return self.split.content

    def read(self, parts: Sequence[int]) -> Batch:
        """Returns all rows, as they are filled in now."""
        return self.resident

    def labels(self) -> Tensor:
        """Returns the classes of all rows in order, with shape (N,)."""
        return self.split.labels()


def _chunk(width: int) -> int:
    """Returns how many rows of a width have their matrices in memory at a time."""
    return max(1, CHUNK // width**2)


def _whole(split: Split) -> Tensor:
    """Returns rows and their contexts, with shape (N, D + C)."""
    x, context = split.tensor(), split.context
    return x if context is None else torch.cat([x, context.to(x)], 1)


def _scores(columns: Sequence[Tensor], x: Tensor) -> Tensor:
    """Returns normal scores in float64, NaN where an entry is missing."""
    found = []
    for known, column in zip(columns, x.mT, strict=True):
        ends = [
            torch.searchsorted(known, column.contiguous(), right=right) for right in (False, True)
        ]
        middle = (ends[0] + ends[1]).double() / (2 * len(known))
        least = 0.5 / len(known)
        z = torch.special.ndtri(middle.clamp(least, 1 - least))
        found.append(torch.where(column.isnan(), torch.nan, z))
    return torch.stack(found, 1)
