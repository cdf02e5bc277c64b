r"""What rows lack, filled in before there is a flow: by a Gaussian of the columns' ranks.

Column by column, the observed values are carried to normal scores, :math:`\Phi^{-1}` of their
ranks. Mean and covariance of the scores are those of greatest likelihood given what is observed,
by expectation maximisation; missing scores are drawn from their conditional law and carried back
to values that the column has: integers stay integers, and nothing leaves its column's range.

Source: Statistical Analysis with Missing Data (Little and Rubin, 2019), 11.2, for the
maximisation; Extending the Rank Likelihood for Semiparametric Copula Estimation (Hoff,
2007) for the law.
"""

__all__ = ["POLICIES", "Completed", "Law"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from ..randomness import RowGenerator, generator, normal
from .loader import Batch, Split

POLICIES = ("drop", "impute")
"""What may be done with rows that lack an entry."""

ROWS, NUMBERS = 5_000, 1e9
"""Rows of the maximisation at most, and of rows times D³; never fewer than 2 D rows."""

ITERATIONS = 25
"""Of the maximisation."""

RIDGE = 1e-3
"""Share of the identity in the covariance of the scores."""

CHUNK = 1 << 22
"""Most numbers of the matrices of a chunk of rows."""


@dataclass(frozen=True)
class Law:
    """A Gaussian of normal scores.

    Attributes:
        values: The observed values of each column, ascending.
        mean: Of the scores, with shape (D,), in float64.
        covariance: With shape (D, D).
    """

    values: tuple[Tensor, ...]
    mean: Tensor
    covariance: Tensor

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
        z = _scores(columns, x[order[:most]])
        mean, covariance = z.new_zeros(width), torch.eye(width).to(z)
        for _ in range(ITERATIONS):
            mean, covariance = _maximised(z, mean, covariance)
        return cls(columns, mean, covariance)

    def complete(self, x: Tensor, seed: int, *path: str | int) -> Tensor:
        """Returns rows (N, D) with their missing entries drawn; the noise is the row's own.

        Arguments:
            x: The rows, NaN where an entry is missing.
            seed: The seed.
            path: What the noise is for.
        """
        root, found, first = torch.linalg.cholesky(self.covariance), x.clone(), 0
        for rows in x.split(max(1, CHUNK // x.shape[1] ** 2)):
            noise = RowGenerator(seed, "missing", *path, first=first)
            drawn = self.mean + normal(rows.shape, root, noise) @ root.mT
            z, seen = _scores(self.values, rows), ~rows.isnan()
            away = torch.where(seen, z - drawn, 0.0)
            drawn = drawn + _carried(self.covariance, seen, away)
            found[first : first + len(rows)] = torch.where(seen, rows, self._values(drawn).to(x))
            first += len(rows)
        return found

    def _values(self, z: Tensor) -> Tensor:
        u = torch.special.ndtr(z)
        columns = zip(self.values, u.mT, strict=True)
        return torch.stack(
            [v[(p * len(v)).long().clamp(max=len(v) - 1)].double() for v, p in columns], 1
        )


class Completed(Split):
    """Creates a split in memory whose missing entries are filled in, to be filled in again.

    Arguments:
        split: The split, NaN where an entry is missing.
        law: What they are drawn from at first.
        seed: Where the draws come from.

    Raises:
        BadInput: If the split does not fit into the memory for one.
    """

    def __init__(self, split: Split, law: Law, seed: int) -> None:
        options = {key: getattr(split, key) for key in ("shape", "dtype", "levels", "where")}
        super().__init__(split.name, parts=[len(split)], **options)
        self.split = split
        x = split.tensor()
        self.missing = x.isnan()
        self.resident = Batch(law.complete(x, seed, split.name), split.resident.context)

    @property
    def content(self) -> Batch:
        """The rows as they are, missing entries included."""
        return self.split.content

    @property
    def context(self) -> Tensor | None:
        """What each row is given, with shape (N, C)."""
        return self.resident.context

    @property
    def given(self) -> int | None:
        """The width C of the contexts, None without."""
        return None if self.context is None else self.context.shape[1]

    def read(self, parts: Sequence[int]) -> Batch:
        """Returns all rows, as they are filled in now."""
        return self.resident

    def labels(self) -> Tensor:
        """Returns the classes of all rows in order, with shape (N,)."""
        return self.split.labels()


def _maximised(z: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what one iteration makes of a mean and a covariance."""
    whole, spread = torch.empty_like(z), torch.zeros_like(covariance)
    for first, rows in _chunks(z):
        seen = ~rows.isnan()
        away = torch.where(seen, rows - mean, 0.0)
        expected = mean + _carried(covariance, seen, away)
        whole[first : first + len(rows)] = torch.where(seen, rows, expected)
        cross = covariance * seen.unsqueeze(1)
        rest = covariance - cross @ torch.linalg.solve(_seen_block(covariance, seen), cross.mT)
        spread += (rest * (~seen).unsqueeze(1) * (~seen).unsqueeze(2)).sum(0)
    mean = whole.mean(0)
    centred = whole - mean
    found = (centred.mT @ centred + spread) / len(z)
    return mean, (1 - RIDGE) * found + RIDGE * torch.eye(len(mean)).to(found)


def _chunks(z: Tensor) -> Iterator[tuple[int, Tensor]]:
    first = 0
    for rows in z.split(max(1, CHUNK // z.shape[1] ** 2)):
        yield first, rows
        first += len(rows)


def _carried(covariance: Tensor, seen: Tensor, away: Tensor) -> Tensor:
    """Returns Σ_{·o} Σ_oo⁻¹ of deviations (B, D) that are 0 where nothing is seen."""
    pull = torch.linalg.solve(_seen_block(covariance, seen), away.unsqueeze(2))
    return (covariance @ pull).squeeze(2)


def _seen_block(covariance: Tensor, seen: Tensor) -> Tensor:
    """Returns Σ_oo of every row with shape (B, D, D), and the identity where nothing is seen."""
    both = seen.unsqueeze(1) & seen.unsqueeze(2)
    return torch.where(both, covariance, torch.eye(len(covariance)).to(covariance))


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
