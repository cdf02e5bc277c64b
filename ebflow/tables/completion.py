"""First samples of the missing values of training rows, before there is a flow."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..conditioning import Conditional
from ..errors import BadInput
from ..randomness import RowGenerator, generator, normal
from .batches import Split
from .rows import Rows, subset

ROWS = 2_000  # Most rows of the maximization, or 2 D
ENTRIES = 1e9  # Most rows of it times D³
ITERATIONS = 25  # Iterations of the maximization
RIDGE = 1e-3  # Share of the identity in the covariance of the scores
CHUNK = 1 << 22  # Most entries of the matrices of a chunk of rows
ENOUGH = 50  # Complete validation rows from which incomplete ones are dropped


def fit_gaussian(z: Tensor) -> GaussianMixture:
    """Returns the Gaussian with nearly the greatest likelihood of the observed values.

    Rows have shape (N, D) and columns of about unit scale, NaN where a value is missing.
    Cost: O(D³) for each incomplete row, and O(D²) for each row, an iteration.
    """
    incomplete, identity = z.isnan().any(1), torch.eye(z.shape[1]).to(z)
    gaussian, means = _gaussian(z.new_zeros(z.shape[1]), identity), z.clone()
    for _ in range(ITERATIONS):
        spread, parts = 0.0, [means[:0]]
        for part in z[incomplete].split(_chunk(z.shape[1])):
            given = _given(gaussian, part)
            parts.append(given.means[:, 0, 0])
            spread = spread + given.covariances[:, 0].sum(0)
        means[incomplete] = torch.cat(parts)
        mean = means.mean(0)
        centred = means - mean
        covariance = (centred.mT @ centred + spread) / len(z)
        gaussian = _gaussian(mean, (1 - RIDGE) * covariance + RIDGE * identity)
    return gaussian


def _given(gaussian: GaussianMixture, z: Tensor) -> Conditional:
    """Returns the distribution of the missing values of rows, NaN, given the observed ones."""
    return Conditional(gaussian, z.nan_to_num()[:, None], z.isnan())


def _gaussian(mean: Tensor, covariance: Tensor) -> GaussianMixture:
    return GaussianMixture(mean.new_ones(1), mean[None], covariance[None])


@dataclass(frozen=True)
class RankCopula:
    r"""A Gaussian of the columns' ranks, which samples missing values.

    The observed values of each column become normal scores, :math:`\Phi^{-1}` of their ranks. The
    scores have a Gaussian whose likelihood given the observed values is the greatest. Missing
    scores are sampled from their conditional distribution, and become values that the column has:
    integers stay integers, and no value leaves its column's range.

    Source: Statistical Analysis with Missing Data (Little and Rubin, 2019), 11.2, for the
    maximization; Extending the Rank Likelihood for Semiparametric Copula Estimation (Hoff,
    2007) for the copula.
    """

    values: tuple[Tensor, ...]  # the observed values of each column, ascending
    scores: GaussianMixture

    @classmethod
    def fit(cls, x: Tensor, seed: int = 0, effort: float = 1.0) -> "RankCopula":
        """Fits the copula to rows (N, D), NaN where a value is missing, or to a share of them.

        Cost: O(D³) for each row and iteration.

        Raises:
            BadInput: if a column has no value.
        """
        columns = tuple(column[~column.isnan()].sort().values for column in x.mT)
        for k, column in enumerate(columns):
            if not len(column):
                raise BadInput(option="x", column=k, found=f"no value in {len(x)} rows")
        width = x.shape[1]
        most = max(2 * width, int(effort * min(ROWS, ENTRIES / width**3)))
        order = torch.randperm(len(x), generator=generator(seed, "missing", "rows"))
        return cls(columns, fit_gaussian(_scores(columns, x[order[:most]])))

    def complete(self, x: Tensor, seed: int, *path: str | int) -> Tensor:
        """Returns rows (N, D) with samples of their missing values, NaN.

        The noise of a row depends on its number, the seed and the ``path`` alone.
        """
        parts, first = [], 0
        for rows in x.split(_chunk(x.shape[1])):
            noise = RowGenerator(seed, "missing", *path, first=first)
            numbers = normal((len(rows), 1, x.shape[1]), self.scores.means, noise)
            z, incomplete = _scores(self.values, rows), rows.isnan().any(1)
            if incomplete.any():
                given, normals = _given(self.scores, z[incomplete]), numbers[incomplete]
                z[incomplete] = given.completions(torch.zeros_like(normals[..., 0]), normals)[:, 0]
            parts.append(torch.where(rows.isnan(), self._values(z).to(x), rows))
            first += len(rows)
        return torch.cat(parts)

    def _values(self, z: Tensor) -> Tensor:
        """Returns the values of normal scores."""
        shares = torch.special.ndtr(z).mT
        columns = zip(self.values, shares, strict=True)
        quantiles = [v[(p * len(v)).long().clamp(max=len(v) - 1)].double() for v, p in columns]
        return torch.stack(quantiles, 1)


def completed(splits: Sequence[Rows], seed: int, effort: float = 1.0) -> Sequence[Split]:
    """Returns training and validation rows without missing values.

    Missing values of the training rows are sampled, and sampled again while a flow is trained.
    Complete validation rows decide when to stop; if they are few, all rows are completed once.
    """
    if not any(bool(split.resident.x.isnan().any()) for split in splits):
        return splits
    train, *held_out = splits
    copula = RankCopula.fit(with_contexts(train), seed, effort)
    parts: list[Split] = [Completed(train, copula, seed)]
    for split in held_out:
        complete = (~split.resident.x.isnan().any(1)).nonzero().flatten()
        enough = len(complete) >= min(ENOUGH, len(split))
        parts.append(subset(split, complete) if enough else Completed(split, copula, seed))
    return parts


class Completed(Rows):
    """A split in memory whose missing values, NaN, are sampled, and may be sampled again.

    Raises:
        BadInput: if the split is larger than the memory for one.
    """

    def __init__(self, split: Split, copula: RankCopula, seed: int) -> None:
        x = copula.complete(with_contexts(split), seed, split.name)[:, : split.width]
        x = x.to(split.dtype).contiguous().unflatten(1, split.shape)
        super().__init__(x, split.context, name=split.name, categories=split.categories)
        self.split, self.missing = split, split.tensor().isnan()

    def labels(self) -> Tensor:
        """Returns the classes of all rows in order, with shape (N,)."""
        return self.split.labels()


def _chunk(width: int) -> int:
    """Returns the number of rows of a width whose matrices are in memory at a time."""
    return max(1, CHUNK // width**2)


def with_contexts(split: Split) -> Tensor:
    """Returns rows and their contexts, with shape (N, D + C)."""
    x, context = split.tensor(), split.context
    return x if context is None else torch.cat([x, context.to(x)], 1)


def _scores(columns: Sequence[Tensor], x: Tensor) -> Tensor:
    """Returns normal scores in float64, NaN where a value is missing."""
    scores = []
    for values, column in zip(columns, x.mT, strict=True):
        column = column.contiguous()
        below, upto = (torch.searchsorted(values, column, right=right) for right in (False, True))
        middle = (below + upto).double() / (2 * len(values))
        least = 0.5 / len(values)
        z = torch.special.ndtri(middle.clamp(least, 1 - least))
        scores.append(torch.where(column.isnan(), torch.nan, z))
    return torch.stack(scores, 1)
