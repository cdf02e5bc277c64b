"""Objectives that train linear layers by likelihood with learned inverses: EBFlow's rivals.

They have the signature of those of ``objectives``, for flows whose costly linear layers are
``DenseWithInverse``: the log-determinants of all others are exact. Whatever trains, the likelihood
that is told of a flow is exact, of the map from data to latent.

The other known ways around a determinant a step are elsewhere: a relative gradient and a lazily
refreshed inverse (``objectives``), a factorised weight (``bijections.DenseLU``, by ``ml``), and
circular convolutions, whose blocks are those of a Fourier transform (``bijections.Convolution``).

    >>> flow = ebflow.architectures.dense((3,), linear="learned_inverse")
    >>> ebflow.rivals.self_normalizing(flow(), x, generator=torch.Generator()).shape
    torch.Size([60])
"""

__all__ = ["RIVALS", "free_form", "inverse_error", "self_normalizing"]

from collections.abc import Callable

from torch import Tensor

from .bijections import ConstantJacobian, DenseWithInverse
from .distribution import FlowDistribution
from .flow import Flow
from .randomness import Generator, rademacher

Step = Callable[[DenseWithInverse, Tensor], tuple[Tensor, Tensor, Tensor]]


def self_normalizing(
    density: FlowDistribution, x: Tensor, *, generator: Generator, reconstruction: float = 2.0
) -> Tensor:
    """Returns E(x) + λ Σ r, whose backward has each layer's Rᵀ in the place of W⁻ᵀ.

    r is the squared error with which a layer's R undoes W. Exact maximum likelihood if every R is
    W⁻¹. The value lacks log Z. Costs 6L GEMMs, no inverse and no determinant.

    Source: Self Normalizing Flows (Keller, Peters, Jaini, Hoogeboom, Forré, Welling, 2021),
    arXiv:2011.07248.

    Arguments:
        density: The density of a flow.
        x: The data, with shape (B, D).
        generator: Not used.
        reconstruction: λ; the official code has 1 beside half of the other gradients.
    """

    def step(layer: DenseWithInverse, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return layer.self_normalized(x)

    return _loss(density, x, step, reconstruction)


def free_form(
    density: FlowDistribution, x: Tensor, *, generator: Generator, reconstruction: float = 2.0
) -> Tensor:
    """Returns E(x) + λ Σ r, whose backward has v (R v)ᵀ in the place of every W⁻ᵀ.

    v are independent signs for each example and layer. Unbiased for maximum likelihood if every
    R is W⁻¹; of ``self_normalizing`` it has the mean and a larger variance. It is free-form
    training of each linear layer, whose activations keep their exact log-determinants; that of a
    whole net has the variance of all of its layers. Costs 8L GEMMs. Arguments as there.

    Source: Free-form Flows: Make Any Architecture a Normalizing Flow (Draxler, Sorrenson,
    Zimmermann, Rousselot, Köthe, 2024), arXiv:2310.16624.
    """

    def step(layer: DenseWithInverse, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return layer.free_form(x, rademacher(x.shape, x, generator))

    return _loss(density, x, step, reconstruction)


def inverse_error(flow: Flow) -> float | None:
    """Returns the largest ‖R W − I‖ / √D of a flow's layers; None without a learned inverse."""
    layers = [layer for layer in flow.layers if isinstance(layer, DenseWithInverse)]
    return max((layer.inverse_error() for layer in layers), default=None)


def _loss(density: FlowDistribution, x: Tensor, step: Step, reconstruction: float) -> Tensor:
    log_dets: Tensor | float = 0.0
    errors: Tensor | float = 0.0
    for layer in density.layers:
        if isinstance(layer, DenseWithInverse):
            x, log_det, error = step(layer, x)
            errors = errors + error
        elif layer.constant_jacobian and _costly(layer.core):
            raise ValueError(f"layer: found {type(layer).__name__}, expected a learned inverse")
        else:
            x, log_det = layer.forward_and_log_det(x)
        log_dets = log_dets + log_det
    return density.base.energy(x) - log_dets + reconstruction * errors


def _costly(layer: ConstantJacobian) -> bool:
    return layer.lazy and bool(layer.volume_parameters())


RIVALS = {function.__name__: function for function in (self_normalizing, free_form)}
