r"""Laws that look like data, with exact scores at every noise.

Gaussian mixtures that were fitted to images. Noise of deviation σ turns one into another, whose
density, score and mean of :math:`x_0` given x are closed:

.. math:: E[x_0 \mid x] = x + \sigma^2 s(x, \sigma).

Three are packaged, in units of the root of the mean variance of a feature, the mean at 0:

========== ==== =================================================== ===============================
name       D    of what                                             as
========== ==== =================================================== ===============================
digits     64   scikit-learn's handwritten digits, 8×8              Gaussians, full covariances
mnist      784  MNIST, 28×28                                        analysers of 10 factors
patches    256  16×16 patches of scikit-learn's two photographs     analysers of 10 factors
========== ==== =================================================== ===============================

Example, the errors of a denoiser of another library: a ridge regression of scikit-learn's.

    >>> from sklearn.linear_model import Ridge
    >>> truth, generator = ebflow.complexity.load("digits"), torch.Generator().manual_seed(0)
    >>> clean = truth.sample(2000, generator=generator)
    >>> noisy = clean + 0.5 * torch.randn(clean.shape, generator=generator)
    >>> model = Ridge().fit(noisy, clean)
    >>> found = ebflow.complexity.denoising_errors(
    ...     lambda x, sigma: torch.from_numpy(model.predict(x.numpy())), truth, 0.5,
    ...     generator=generator,
    ... )
    >>> sorted(found)
    ['sigma_d_0.1', 'sigma_l2', 'sigma_truncated']
    >>> bool(found["sigma_d_0.1"] > found["sigma_l2"])
    True
"""

__all__ = ["FITTED", "NAMES", "Truth", "fit_truth", "load", "save"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..files import load_tensors, save_tensors
from ..randomness import Generator
from .factors import FactorMixture, fit_factors
from .instances import Instance, Stratified

NAMES = ("digits", "mnist", "patches")
"""The laws that are packaged."""

FITTED = Path(__file__).parent / "fitted"

FLOOR = 0.015
"""The least variance of a component in any direction, in the units of a truth."""


@dataclass(frozen=True)
class Truth:
    """A law with exact scores at every noise.

    Attributes:
        clean: The law without noise.
        rare: The weight of its last component, if that was implanted; else 0.
    """

    clean: GaussianMixture
    rare: float = 0.0

    def smoothed(self, sigma: float) -> GaussianMixture:
        """Returns the law of x₀ + σ z."""
        return self.clean.smoothed(sigma) if sigma else self.clean

    def log_prob(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Returns log p(x) at noise σ in nats with shape (B,), for ``x`` with shape (B, D)."""
        return self.smoothed(sigma).log_prob(x)

    def score(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Returns ∇ log p(x) at noise σ with shape (B, D)."""
        return self.smoothed(sigma).score(x)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Returns E[x₀ | x] with shape (B, D)."""
        return x + sigma**2 * self.score(x, sigma)

    def sample(self, n: int, *, sigma: float = 0.0, generator: Generator | None = None) -> Tensor:
        """Returns ``n`` samples at noise σ with shape (n, D)."""
        return self.smoothed(sigma).sample(n, generator=generator)

    def components(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Returns the component under which each of ``x`` is most likely, with shape (B,)."""
        return self.smoothed(sigma).responsibilities(x).argmax(0)

    def stratified(self, n: int, sigma: float, *, generator: torch.Generator) -> Stratified:
        r"""Returns n test points of every component: rare ones are seen as exactly as others.

        With q, in which all K components weigh alike, the points are of q, and weigh p / q,

        .. math:: \frac{p(x)}{q(x)} = \frac{K}{\sum_k r_k(x) / w_k},

        for responsibilities r and weights w, scaled to sum to 1: what a heavy component gives to
        the region of a rare one weighs no more than what that gives itself.

        Source: Optimally combining sampling techniques for Monte Carlo rendering (Veach, Guibas,
        1995), whose balance heuristic it is.
        """
        test = Instance(self.clean, sigma).stratified(n, generator=generator)
        shares = self.smoothed(sigma).responsibilities(test.noisy) / self.clean.weights[:, None]
        weights = shares.sum(0).reciprocal()
        return test._replace(weights=weights / weights.sum())

    @property
    def radius(self) -> float:
        """√E ‖x − E x‖², in closed form."""
        law = self.clean
        offsets = (law.means - law.weights @ law.means).square().sum(1)
        spread = law.covariances.diagonal(dim1=1, dim2=2).sum(1)
        return float((law.weights @ (offsets + spread)).sqrt())

    def with_rare(self, eta: float, *, distance: float = 2.0) -> "Truth":
        """Returns the law with a rare mode beside it, in weight η.

        It is the heaviest component turned into its negative: of the same covariance, its mean
        opposite to that component's as the law's mean sees it.

        Arguments:
            eta: η, in (0, 1); in 5e-4 … 5e-2 it is between never and always seen.
            distance: How far its mean is from the law's, in units of ``radius``.

        Raises:
            ValueError: unless 0 < η < 1.
        """
        if not 0 < eta < 1:
            raise ValueError(f"eta: found {eta}, expected a weight between 0 and 1")
        law, k = self.clean, int(self.clean.weights.argmax())
        centre = law.weights @ law.means
        away = centre - law.means[k]
        mean = centre + distance * self.radius * away / away.norm()
        weights = torch.cat([(1 - eta) * law.weights, law.weights.new_tensor([eta])])
        means = torch.cat([law.means, mean[None]])
        return Truth(_again(law, weights, means, k), eta)


def _again(law: GaussianMixture, weights: Tensor, means: Tensor, k: int) -> GaussianMixture:
    """Returns a law with the covariance of component k once more at its end."""
    if isinstance(law, FactorMixture):
        parts = (torch.cat([part, part[k : k + 1]]) for part in (law.factors, law.noise))
        return FactorMixture(weights, means, *parts)
    covariances = law.covariances
    return GaussianMixture(weights, means, torch.cat([covariances, covariances[k : k + 1]]))


def fit_truth(
    x: Tensor,
    held_out: Tensor,
    *,
    components: Sequence[int] = (10, 20, 40),
    factors: int | None = None,
    seed: int = 0,
) -> Truth:
    """Returns the mixture, of the numbers of components given, that is best on rows held out.

    Arguments:
        x: Training rows with shape (N, D).
        held_out: Further rows.
        components: Numbers of components that are tried.
        factors: Of analysers; None: full covariances.
        seed: Where the starts come from.
    """
    x, held_out = x.double(), held_out.double()
    centre = x.mean(0)
    scale = float((x - centre).square().mean().sqrt())
    rows, others = (x - centre) / scale, (held_out - centre) / scale
    found = [_fitted(rows, count, factors, seed) for count in components]
    return Truth(max(found, key=lambda law: float(law.log_prob(others).mean())))


def _fitted(x: Tensor, count: int, factors: int | None, seed: int) -> GaussianMixture:
    if factors is not None:
        return fit_factors(x, count, factors, floor=FLOOR, seed=seed)
    from sklearn.mixture import GaussianMixture as Mixture

    model = Mixture(count, reg_covar=FLOOR, random_state=seed).fit(x.numpy())
    parts = (model.weights_, model.means_, model.covariances_)
    return GaussianMixture(*map(torch.from_numpy, parts))


def save(truth: Truth, path: Path) -> None:
    """Writes a law to one file of safetensors, in float32."""
    law = truth.clean
    kind = ("factors", "noise") if isinstance(law, FactorMixture) else ("covariances",)
    names = ("weights", "means", *kind)
    save_tensors({name: getattr(law, name).float() for name in names}, path, rare=repr(truth.rare))


def load(name: str | Path, dtype: torch.dtype = torch.float64) -> Truth:
    """Returns a law that is packaged, by its name, or one that ``save`` wrote, by its path.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = FITTED / f"{name}.safetensors" if name in NAMES else Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no file, expected a law or one of {NAMES}")
    state, metadata = load_tensors(path)
    kind = FactorMixture if "factors" in state else GaussianMixture
    law = kind(**{name: t.to(dtype) for name, t in state.items()})
    return Truth(law, float(metadata["rare"]))
