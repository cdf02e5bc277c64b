"""A flow and a detector of anomalies as estimators of scikit-learn.

    >>> from ebflow.sklearn import FlowDensity
    >>> model = FlowDensity(steps=20).fit(X)
    >>> model.score_samples(X).shape                    # log-densities in nats
    (60,)
    >>> model.sample(10).shape
    (10, 3)

It is used like ``KernelDensity`` and ``GaussianMixture``: in pipelines, grid searches and
cross-validation, whose score is the mean log-likelihood.
"""

__all__ = ["FlowDensity", "FlowDetector"]

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted, check_random_state

from .bases import Base
from .detector import FlowDetector, TableEstimator
from .fitting import fit
from .tables import ArrayLike


class FlowDensity(DensityMixin, TableEstimator):
    """A density estimator. Its parameters and types of columns are those of :func:`~ebflow.fit`.

    ``random_state`` is its ``seed``: a seed, a ``RandomState``, or None. ``verbose`` is its
    ``progress``. ``context`` has the names of the columns of a frame that are given; the density
    is that of the other columns. ``dtype`` may be a name, such as ``float32``.

    Attributes:
        flow_: The fitted flow, in float64.
        n_iter_: The number of optimizer steps.
    """

    def __init__(
        self,
        *,
        architecture: str | None = None,
        options: dict[str, Any] | None = None,
        base: Base | None = None,
        objective: str = "lazy_ml",
        normalize: str | None = None,
        shrinkage: float | None = None,
        marginals: bool = True,
        bounds: Mapping[str | int, tuple[float | None, float | None]] | None = None,
        missing: str | None = "impute",
        context: Sequence[str] | None = None,
        validation: float | int = 0.1,
        lr: float | None = None,
        weight_decay: float | None = None,
        steps: int | None = None,
        max_seconds: float | None = None,
        batch_size: int | None = None,
        validate_every: int | None = None,
        patience: int | None = 8,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "float32",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        # scikit-learn reads each parameter from the attribute of its name.
        vars(self).update((name, value) for name, value in locals().items() if name != "self")

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fits a flow to rows ``X`` (N, D) of some weights (N,); ``y`` is not used."""
        rows = self._checked(X, reset=True)
        options = self.get_params(deep=False)
        seed = check_random_state(options.pop("random_state")).randint(2**31 - 1)
        options |= {"seed": int(seed), "progress": options.pop("verbose")}
        if isinstance(self.dtype, str):
            options["dtype"] = getattr(torch, self.dtype, self.dtype)
        # Likelihoods in float64: rows are then rounded alike in any batch.
        self.flow_ = fit(rows, sample_weight=sample_weight, **options).double()
        self.n_iter_ = self.flow_.history[-1]["step"] if self.flow_.history else 0
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Returns the log-density of every row in nats, with shape (N,)."""
        check_is_fitted(self)
        rows = self._checked(X, reset=False)
        with torch.no_grad():
            return self.flow_.log_prob(rows).double().cpu().numpy()

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Returns the mean log-density of the rows in nats; ``y`` is not used."""
        return float(self.score_samples(X).mean())

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
        *,
        context: ArrayLike | None = None,
    ) -> ArrayLike:
        """Returns samples: a frame if the model was fitted to one, else an array (n_samples, K).

        ``context`` has the columns that are given, as a frame or a dictionary; there are
        ``n_samples`` for each of its rows.
        """
        check_is_fitted(self)
        seed = check_random_state(random_state).randint(2**31 - 1)
        generator = torch.Generator(self.flow_.device).manual_seed(int(seed))
        return self.flow_.sample(n_samples, context=context, generator=generator)
