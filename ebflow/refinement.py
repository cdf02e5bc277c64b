r"""Refinement of a flow by boosted trees, which learn what distinguishes its samples from data.

The refined density is that of the flow, q, times an exponential of trees f:

.. math:: p(x) = \frac{1}{Z} \, q(x) \, e^{f(x)}, \qquad Z = E_{x \sim q} \, e^{f(x)}.

Gradient boosting learns to distinguish rows of the data from samples of the flow. With equal
weights of both, its logit estimates :math:`\log p / q`. Held-out rows end the boosting. Samples of
p are those of q, accepted with probabilities proportional to :math:`e^f`. Trees find what is hard
for a smooth density: edges, and exact relations of columns.

Source: Noise-Contrastive Estimation (Gutmann, Hyvärinen, 2010), AISTATS; Discriminator Rejection
Sampling (Azadi, Olsson, Darrell, Goodfellow, Odena, 2019), arXiv:1810.06758.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from .flow import Flow
from .imputation import impute
from .randomness import Generator, uniform
from .randomness import generator as derive
from .tables import ArrayLike
from .target import rows_and_contexts

LEAST = 50  #: Rows of a refinement at least
ROWS, SAMPLES, MOST = 50_000, 10, 200_000  # Most rows, samples for each, and in all
INCOMPLETE = 3_000  # Most rows with missing values; complete ones are dropped in proportion
ROUNDS, PATIENCE = 500, 20  # Most trees, and trees without improvement that end the boosting
SHRINKAGE = 20.0  # Regularization of leaves, as the ratios of a few samples would be extreme
LEVELS = 255  # Codes of a category that trees distinguish at most; more are numbers
COMMON, PART = 0.99, 10_000  # Share of ratios that are not cut off, and samples at a time


@dataclass(frozen=True)
class Refined:
    """A flow's density times an exponential of boosted trees f."""

    flow: Flow  #: of rows (D,)
    trees: HistGradientBoostingClassifier  #: the classifier whose logit is f
    log_normalizer: float  #: an estimate of log Z in nats
    error: float  #: its standard error
    largest: float  #: f of samples above it counts as this one when they are accepted

    def log_ratio(self, x: ArrayLike) -> Tensor:
        """Returns f, the logarithm of p / q up to log Z, in float64 with shape (N,).

        Raises:
            ValueError: if a value is missing or infinite.
        """
        rows, _ = rows_and_contexts(self.flow, x, None)
        if bool(rows.isnan().any()):
            raise ValueError("x: found a missing value, expected complete rows: see flow.impute")
        return _logits(self.trees, rows)

    def log_prob(self, x: ArrayLike) -> Tensor:
        """Returns log p in nats with shape (N,), without gradients; errors as of ``log_ratio``."""
        with torch.no_grad():
            log_q = self.flow.log_prob(x).double().cpu()
        return log_q + self.log_ratio(x) - self.log_normalizer

    def sample(self, count: int, *, generator: Generator | None = None) -> ArrayLike:
        """Returns ``count`` samples: a frame as of ``flow.sample``, else a tensor (count, D).

        Cost: about exp(``largest``) / Z samples of the flow for each row.
        """
        parts, found = [self.flow().sample_tensor(0)], 0
        while found < count:
            candidates = self.flow().sample_tensor(PART, generator=generator)
            parts.append(self.accepted(candidates, generator))
            found += len(parts[-1])
        return self.flow().as_fitted(torch.cat(parts)[:count])

    def accepted(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Returns those samples of the flow, with shape (N, D), that are samples of p."""
        share = (_logits(self.trees, x) - self.largest).exp().to(x.device)
        return x[uniform((len(x),), share, generator) < share]


def refine(flow: Flow, x: ArrayLike, *, seed: int = 0) -> Refined:
    """Returns a flow refined by boosted trees.

    Cost: twenty samples of the flow for each row, 400,000 at most, some seconds of boosting, and
    an imputation of the incomplete rows.

    Arguments:
        flow: The flow, of rows (D,), without contexts.
        x: Rows with shape (N, D), best the ones that the flow was trained on. Missing values are
            sampled by the flow. A random choice of at most 50,000 rows, of which at most 3,000
            are incomplete, is used.
        seed: The seed of samples, chosen and held-out rows.

    Raises:
        ValueError: if the flow is one of images or has contexts, or there are fewer than 50 rows.

    Example:
        >>> flow = ebflow.architectures.dense((3,))
        >>> refined = ebflow.refine(flow, x)
        >>> refined.sample(10).shape, refined.log_prob(x).shape
        (torch.Size([10, 3]), torch.Size([60]))
    """
    if flow.context:
        raise ValueError(f"flow: found {flow.context} elements of a context, expected none")
    rows, _ = rows_and_contexts(flow, x, None)
    if len(rows) < LEAST:
        raise ValueError(f"x: found {len(rows)} rows, expected {LEAST} or more")
    rows = rows[torch.randperm(len(rows), generator=derive(seed, "rows"))[:ROWS]]
    rows = rows[rows.isnan().any(1).cumsum(0) <= INCOMPLETE]
    noise = derive(seed, "refinement", device=flow.device)
    completed = impute(flow, rows, generator=noise, samples=1)
    completed.check()
    rows = completed.samples[:, 0]
    count = min(SAMPLES * len(rows), MOST)
    others, fresh = (flow().sample_tensor(count, generator=noise) for _ in range(2))
    sizes = enumerate(flow.columns.sizes if flow.columns else ())
    levels = [column for column, size in sizes if 0 < size <= LEVELS]
    trees = HistGradientBoostingClassifier(
        max_iter=ROUNDS, early_stopping=True, n_iter_no_change=PATIENCE, class_weight="balanced",
        l2_regularization=SHRINKAGE, categorical_features=levels,
        random_state=noise.initial_seed() % 2**32,
    )  # fmt: skip
    label = np.arange(len(rows) + count) < len(rows)
    trees.fit(torch.cat([rows.cpu().double(), others.cpu().double()]).numpy(), label)
    f = _logits(trees, fresh)
    log_z = float(f.logsumexp(0)) - math.log(count)
    error = float((f - log_z).exp().std()) / math.sqrt(count)
    return Refined(flow, trees, log_z, error, float(f.quantile(COMMON)))


def _logits(trees: HistGradientBoostingClassifier, x: Tensor) -> Tensor:
    some = x.double().cpu().numpy()
    return torch.from_numpy(trees.decision_function(some) if len(some) else some.sum(1))
