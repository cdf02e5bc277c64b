r"""The chain in front of a flow: dequantisation, logit, standardising or whitening.

Linear layers are free in an energy-based flow, and the Fisher divergence, unlike the likelihood,
is not invariant to them: matching scores of *whitened* data starts from the Gaussian baseline
and weighs every direction alike. With training mean m, standard deviations S (diagonal) and
correlations R, shrunk to :math:`(1 - \rho) R + \rho I`, whitening is
:math:`y = R^{-1/2} S^{-1} (x - m)`; it does not depend on the features' units.

Integer data of ``levels`` values are first completed by uniform noise, divided by ``levels``,
moved off the edges by ``margin`` and carried to the real line by logit(x) / ``scale``. That logit
ends just beyond the data. *Extended*, it goes on as its tangents at the ends of their range, so
that a point which noise moves out of it has a density too; the density then has mass outside
[0, levels], and stays a lower bound of the integers' likelihood.

In front of real columns stand the steps of ``marginals``, if they are asked for.
"""

__all__ = ["Preprocessing", "SingularCovariance", "build", "fit", "gaussian"]

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from . import bases, marginals
from .bijections import Affine, Bijection, Dense, Dequantise, Logit
from .errors import BadInput
from .flow import Flow
from .randomness import RowGenerator

COARSEST = 1e-3
"""Largest step between representable values of a feature, in its standard deviations."""

NORMALISE = ("none", "standardise", "whiten")


class SingularCovariance(BadInput):
    """No Gaussian has the greatest likelihood, and no whitening exists without shrinkage."""


@dataclass(frozen=True)
class Preprocessing:
    """A chain of bijections, and how to build it again.

    Attributes:
        layers: The chain, from raw data on.
        spec: For ``build``.
        columns: What was found of a table's columns, if that was just fitted.
        base: A base that was fitted behind the chain, for a flow that starts as it.
    """

    layers: list[Bijection]
    spec: dict[str, Any]
    columns: marginals.Marginals | None = None
    base: bases.Base | None = None

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.layers)

    def save(self, path: Path) -> None:
        """Writes the chain to one file of safetensors; O(D²) bytes if it whitens."""
        tensors = {name: t.contiguous() for name, t in self._modules.state_dict().items()}
        spec = {**self.spec, "base": self.base and self.base.spec}
        save_file(tensors, path, metadata={"spec": json.dumps(spec)})

    @classmethod
    def load(cls, path: Path) -> "Preprocessing":
        """Returns the chain that :meth:`save` wrote, equal to the bit."""
        with safe_open(path, "pt") as file:
            spec = json.loads(file.metadata()["spec"])
            base = spec.pop("base")
            chain = replace(build(spec), base=base and bases.build(base).double())
            # Cloned into memory aligned as torch allocates it: BLAS rounds by alignment.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        chain._modules.load_state_dict(tensors)
        return chain

    @property
    def _modules(self) -> nn.ModuleList:
        return nn.ModuleList([*self.layers, *([self.base] if self.base else [])])


def fit(
    split: Any,  # noqa: ANN401
    *,
    normalise: str = "whiten",
    margin: float | None = 1e-6,
    scale: float = 1.0,
    extended: bool = False,
    shrinkage: float = 0.0,
    seed: int = 0,
    batch_size: int = 1024,
    grids: bool = False,
    tails: bool = False,
    bounds: marginals.Bounds | None = None,
    dtype: torch.dtype = torch.float64,
) -> Preprocessing:
    """Fits the preprocessing of a training split in one streamed pass; O(N D²) if whitening.

    Arguments:
        split: The training split.
        normalise: ``none``, ``standardise`` (mean and variance) or ``whiten`` (covariance).
        margin: How far integer data are moved off 0 and 1 before the logit; None: no logit.
        scale: The divisor of the logit.
        extended: Whether the logit goes on, linearly, outside the range of the data.
        shrinkage: ρ in [0, 1), the share of the identity in the correlations.
        seed: Where the dequantisation noise of the pass comes from.
        batch_size: Rows at a time.
        grids: Whether columns of reals that lie on grids are dequantised by their steps.
        tails: Whether bounds and tails of columns of reals are fitted; see ``marginals``.
        bounds: Bounds of columns of reals that are known.
        dtype: The type in which the chain will be used.

    Raises:
        SingularCovariance: if it is, and ``shrinkage`` is 0.
        BadInput: if a feature is constant, or so far from 0 that ``dtype`` cannot resolve it.
    """
    if normalise not in NORMALISE:
        raise ValueError(f"normalise: found {normalise!r}, expected one of {NORMALISE}")
    levels = split.levels
    columns = None
    if levels is None and (grids or tails or bounds):
        first = next(split.shuffled(min(len(split), marginals.GRID_ROWS), seed=seed)).x
        _check_varied((first != first[0]).any(0))
        columns = marginals.fit(first, grids=grids, tails=tails, bounds=bounds, seed=seed)
    spec = {"width": split.width, "levels": levels, "margin": margin, "scale": scale,
            "extended": extended, "columns": columns.spec if columns else []}  # fmt: skip
    layers = columns.layers if columns else _front(**spec)
    if normalise != "none":
        mean, covariance = _moments(split, layers, seed, batch_size, full=normalise == "whiten")
        layers += _fitted(mean, covariance, shrinkage)
        _check_resolved(mean, covariance, dtype)
    return Preprocessing(layers, {**spec, "normalise": normalise}, columns)


def build(spec: dict[str, Any]) -> Preprocessing:
    """Builds the chain of a spec with placeholder statistics, to load a state into."""
    width, normalise = spec["width"], spec["normalise"]
    layers = _front(**{key: value for key, value in spec.items() if key != "normalise"})
    if normalise != "none":
        root = torch.eye(width, dtype=torch.float64) if normalise == "whiten" else None
        mean, variance = (torch.full((width,), t, dtype=torch.float64) for t in (0, 1))
        layers += _normaliser(mean, variance, root)
    return Preprocessing(layers, spec)


def gaussian(chain: Preprocessing) -> Flow:
    """Returns the Gaussian that a whitening chain carries to the standard one, in float64.

    It is the flow of no layer behind the chain. Without shrinkage it is the full-covariance
    Gaussian of greatest likelihood, of the logits where the chain has one.
    """
    return Flow((chain.spec["width"],), []).double().preprocessed(chain)


def _front(
    width: int,
    levels: int | None,
    margin: float | None,
    scale: float,
    extended: bool = False,
    columns: Sequence[str] = (),
) -> list[Bijection]:
    if levels is None:
        return marginals.build(columns, width)
    if margin is None:
        return [Dequantise(levels), Affine(0.0, 1 / levels, (width,), dtype=torch.float64)]
    least = margin * (1 - 2 * margin) if extended else None
    return [Dequantise(levels), Logit(scale, upper=levels, inset=margin, margin=least)]


def _fitted(mean: Tensor, second: Tensor, shrinkage: float) -> list[Bijection]:
    """Returns what standardises by variances (D,), or whitens by a covariance (D, D)."""
    variance = second if second.ndim == 1 else second.diagonal()
    _check_varied(variance > 0)
    if second.ndim == 1:
        return _normaliser(mean, variance, None)
    correlation = second * torch.outer(variance, variance).rsqrt()
    return _normaliser(mean, variance, _inverse_root(correlation, shrinkage))


def _check_varied(varied: Tensor) -> None:
    if not varied.all():
        feature = int((~varied).nonzero()[0, 0])
        raise BadInput(
            f"normalise: found feature {feature} constant on the training split, "
            "expected features that vary"
        )


def _normaliser(mean: Tensor, variance: Tensor, root: Tensor | None) -> list[Bijection]:
    standard = Affine(mean, variance.rsqrt(), mean.shape, dtype=torch.float64)
    return [standard] if root is None else [standard, Dense(root, None, trainable=False)]


def _check_resolved(mean: Tensor, second: Tensor, dtype: torch.dtype) -> None:
    deviation = (second if second.ndim == 1 else second.diagonal()).sqrt()
    steps = torch.finfo(dtype).eps * mean.abs() / deviation
    if steps.max() > COARSEST:
        k = int(steps.argmax())
        name = str(dtype).removeprefix("torch.")
        raise BadInput(
            f"dtype: found {name}, which cannot resolve feature {k} (mean {mean[k]:.6g}, "
            f"standard deviation {deviation[k]:.3g}), expected float64, or data nearer to 0"
        )


def _inverse_root(correlation: Tensor, shrinkage: float) -> Tensor:
    eye = torch.eye(len(correlation), dtype=torch.float64)
    values, vectors = torch.linalg.eigh((1 - shrinkage) * correlation + shrinkage * eye)
    if not values[0] > len(eye) * torch.finfo(torch.float64).eps * values[-1]:
        raise SingularCovariance(
            "shrinkage: found a singular covariance of the training split (features "
            "that depend linearly on others, or fewer rows than features), expected shrinkage > 0"
        )
    return vectors * values.rsqrt() @ vectors.mT


def _moments(
    split: Any,  # noqa: ANN401
    front: Sequence[Bijection],
    seed: int,
    batch_size: int,
    *,
    full: bool,
) -> tuple[Tensor, Tensor]:
    """Returns the mean and the covariance, or the variances, by Chan's update in float64."""
    flow = Flow((split.width,), copy.deepcopy(front), cut=len(front)).double()
    count, mean = 0, torch.zeros(split.width, dtype=torch.float64)
    second: Tensor = torch.zeros((split.width,) * (2 if full else 1), dtype=torch.float64)
    for rows, _ in split.batches(batch_size):
        y = flow.preprocess(rows, RowGenerator(seed, "preprocess", first=count))
        here = y.mean(0)
        centred, delta, total = y - here, here - mean, count + len(y)
        weight = count * len(y) / total
        if full:
            second += centred.mT @ centred + weight * torch.outer(delta, delta)
        else:
            second += (centred**2).sum(0) + weight * delta**2
        count, mean = total, mean + delta * (len(y) / total)
    return mean, second / count
