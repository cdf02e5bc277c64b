"""A flow as an estimator of scikit-learn.

    >>> from ebflow.sklearn import FlowDensity
    >>> model = FlowDensity(steps=20).fit(X)
    >>> model.score_samples(X).shape                    # log-densities in nats
    (60,)
    >>> model.sample(10).shape
    (10, 3)

It stands where ``KernelDensity`` and ``GaussianMixture`` do: in pipelines, grid searches and
cross-validation, whose score is the mean log-likelihood.
"""

__all__ = ["FlowDensity"]

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from .fitting import LEAST, fit


class FlowDensity(DensityMixin, BaseEstimator):
    """Creates a density estimator; parameters are those of :func:`~ebflow.fit`.

    Arguments:
        architecture: A name in ``architectures``; None: what suits the columns.
        options: Options of the architecture.
        objective: A name in ``objectives``.
        normalize: ``none``, ``standardize`` or ``whiten``; None: what suits the architecture.
        shrinkage: The share of the identity in the correlations that are whitened.
        validation: The share, or the number, of rows that decide when to stop.
        steps: Optimizer steps at most.
        max_seconds: Training seconds at most.
        batch_size: Rows a step; None: what suits the architecture.
        patience: Validations without a better one before training stops.
        random_state: Where all random numbers come from: a seed, a ``RandomState``, or None.

    Attributes:
        flow_: The fitted flow.
        n_features_in_: The number of columns.
        feature_names_in_: Their names, if the data had any.
        n_iter_: The steps done.
    """

    def __init__(
        self,
        *,
        architecture: str | None = None,
        options: dict[str, Any] | None = None,
        objective: str = "lazy_ml",
        normalize: str | None = None,
        shrinkage: float | None = None,
        validation: float | int = 0.1,
        steps: int = 6000,
        max_seconds: float | None = None,
        batch_size: int | None = None,
        patience: int | None = 8,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.architecture = architecture
        self.options = options
        self.objective = objective
        self.normalize = normalize
        self.shrinkage = shrinkage
        self.validation = validation
        self.steps = steps
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.patience = patience
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ANN401
        """Fits a flow to rows ``X`` with shape (N, D); ``y`` is not used.

        Raises:
            ValueError: if the rows are not finite, too few, or a column is constant.
        """
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=LEAST)
        given = self.get_params()
        seed = check_random_state(given.pop("random_state")).randint(2**31 - 1)
        # Likelihoods in float64: rows are then rounded alike, whatever stands beside them.
        self.flow_ = fit(rows, seed=int(seed), progress=False, **given).double()
        self.n_iter_ = self.flow_.history[-1]["step"] if self.flow_.history else 0
        return self

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: ANN401
        """Returns the log-density of every row in nats, with shape (N,)."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        with torch.no_grad():
            return self.flow_.log_prob(torch.tensor(np.ascontiguousarray(rows))).double().numpy()

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ANN401
        """Returns the mean log-density of the rows in nats; ``y`` is not used."""
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> np.ndarray:
        """Returns samples with shape (n_samples, D)."""
        check_is_fitted(self)
        seed = check_random_state(random_state).randint(2**31 - 1)
        generator = torch.Generator().manual_seed(int(seed))
        return self.flow_.sample(n_samples, generator=generator).double().numpy()
