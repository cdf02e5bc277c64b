r"""Distributions that resemble data, with exact scores at every noise level.

They are Gaussian mixtures fitted to images. With noise of standard deviation σ they are again
mixtures, whose density, score and mean of :math:`x_0` given x have closed forms:

.. math:: E[x_0 \mid x] = x + \sigma^2 s(x, \sigma).

Three are part of the library. Their mean is 0, and the mean variance of a feature is 1:

========== ==== =================================================== ===============================
name       D    fitted to                                           components
========== ==== =================================================== ===============================
digits     64   scikit-learn's handwritten digits, 8×8              Gaussians, full covariances
mnist      784  MNIST, 28×28                                        analysers of 10 factors
patches    256  16×16 patches of scikit-learn's two photographs     analysers of 10 factors
========== ==== =================================================== ===============================

``docs/measurements/truths.py`` fitted them to grey levels with uniform noise of one level, without
a random sixth of the rows.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..files import load_tensors
from . import fitted
from .factors import FactorMixture
from .instances import Stratified, stratified

NAMES = ("digits", "mnist", "patches")  # The distributions in the library


@dataclass(frozen=True)
class Truth:
    """A distribution with exact scores at every noise level."""

    clean: GaussianMixture  #: The distribution without noise
    rare: float = 0.0  #: The weight of the last component if it was added as a rare mode

    def smoothed(self, sigma: float) -> GaussianMixture:
        """Returns the distribution of x₀ + σ z."""
        return self.clean.smoothed(sigma) if sigma else self.clean

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Returns E[x₀ | x] with shape (B, D)."""
        return x + sigma**2 * self.smoothed(sigma).score(x)

    def stratified(self, n: int, sigma: float, *, generator: torch.Generator) -> Stratified:
        r"""Returns n test points of every component, so rare ones are measured as precisely.

        They are samples of q, in which all K components have the same weight. Their weights are
        p / q = K / Σₖ (rₖ / wₖ) for responsibilities r and weights w, scaled to sum to 1. So a
        point of a heavy component in the region of a rare one has no larger weight than its own.

        Source: Optimally combining sampling techniques for Monte Carlo rendering (Veach, Guibas,
        1995): the balance heuristic.
        """
        test = stratified(self.clean, n, sigma=sigma, generator=generator)
        shares = self.smoothed(sigma).responsibilities(test.noisy) / self.clean.weights[:, None]
        weights = shares.sum(0).reciprocal()
        return test._replace(weights=weights / weights.sum())

    @property
    def radius(self) -> float:
        """√E ‖x − E x‖², in closed form."""
        mixture = self.clean
        offsets = (mixture.means - mixture.weights @ mixture.means).square().sum(1)
        spread = mixture.covariances.diagonal(dim1=1, dim2=2).sum(1)
        return float((mixture.weights @ (offsets + spread)).sqrt())

    def with_rare(self, eta: float, *, distance: float = 2.0) -> "Truth":
        """Returns the distribution with an additional rare mode of weight η.

        The mode has the covariance of the heaviest component, and lies on the opposite side of
        the mean, at a ``distance`` in units of ``radius``.

        Raises:
            ValueError: unless 0 < η < 1.
        """
        if not 0 < eta < 1:
            raise ValueError(f"eta: found {eta}, expected a weight between 0 and 1")
        mixture, k = self.clean, int(self.clean.weights.argmax())
        tensors = {name: torch.cat([t, t[k : k + 1]]) for name, t in parts(mixture).items()}
        centre = mixture.weights @ mixture.means
        away = centre - mixture.means[k]
        tensors["means"][-1] = centre + distance * self.radius * away / away.norm()
        tensors["weights"] *= 1 - eta
        tensors["weights"][-1] = eta
        return Truth(type(mixture)(**tensors), eta)


def parts(mixture: GaussianMixture) -> dict[str, Tensor]:
    """Returns the arguments from which a mixture is created, by name."""
    spread = ("factors", "noise") if isinstance(mixture, FactorMixture) else ("covariances",)
    return {name: getattr(mixture, name) for name in ("weights", "means", *spread)}


def load(name: str | Path, dtype: torch.dtype = torch.float64) -> Truth:
    """Returns a distribution of the library, by its name, or a saved one, by its path.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    packaged = Path(fitted.__file__).parent / f"{name}.safetensors"
    path = packaged if name in NAMES else Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no file, expected one, or a name of {NAMES}")
    state, metadata = load_tensors(path)
    kind = FactorMixture if "factors" in state else GaussianMixture
    mixture = kind(**{name: t.to(dtype) for name, t in state.items()})
    return Truth(mixture, float(metadata["rare"]))
