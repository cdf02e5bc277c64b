"""Likelihoods with learned inverses of linear layers, the rivals of score matching and the anchor.

They have the signature of objectives, and are for flows whose costly linear layers are
``DenseWithInverse``: the log-determinants of all others are exact. Whatever trains a flow, its
likelihood is that of the map from data to latent.

    >>> flow = ebflow.architectures.dense((3,), linear="learned_inverse")
    >>> generator = torch.Generator()
    >>> ebflow.learned_inverse.self_normalizing(flow(), x, generator=generator).shape
    torch.Size([60])
"""

from collections.abc import Callable

from torch import Tensor

from .bijections import DenseWithInverse, Weighted
from .distribution import FlowDistribution
from .flow import Flow
from .randomness import Generator, rademacher

Step = Callable[[DenseWithInverse, Tensor], tuple[Tensor, Tensor, Tensor]]


def self_normalizing(
    density: FlowDistribution, x: Tensor, *, generator: Generator, reconstruction: float = 2.0
) -> Tensor:
    """Returns E(x) + λ Σ r, whose backward has each layer's Rᵀ in the place of W⁻ᵀ.

    r is the squared error with which a layer's R inverts W. Exact maximum likelihood if every R is
    W⁻¹. The value lacks log Z. Costs 6L GEMMs, no inverse and no determinant. ``generator`` is not
    used.

    Source: Self Normalizing Flows (Keller, Peters, Jaini, Hoogeboom, Forré, Welling, 2021),
    arXiv:2011.07248.

    Arguments:
        reconstruction: λ; the official code has 1 beside half of the other gradients.

    Raises:
        ValueError: if a trainable linear layer has no learned inverse.
    """
    return _loss(density, x, DenseWithInverse.self_normalized, reconstruction)


def free_form(
    density: FlowDistribution, x: Tensor, *, generator: Generator, reconstruction: float = 2.0
) -> Tensor:
    """Returns E(x) + λ Σ r, whose backward has v (R v)ᵀ in the place of every W⁻ᵀ.

    v are independent signs for each row and layer. Unbiased for maximum likelihood if every R is
    W⁻¹: it has the mean of ``self_normalizing`` and a larger variance. It is free-form training of
    each linear layer; activations keep their exact log-determinants. Costs 8L GEMMs. Arguments and
    errors as there.

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
        elif isinstance(layer, Weighted) and layer.volume_parameters():
            found = type(layer).__name__
            raise ValueError(f"layer: found {found}, expected a learned inverse")
        else:
            x, log_det = layer.forward_and_log_det(x)
        log_dets = log_dets + log_det
    return density.base.energy(x) - log_dets + reconstruction * errors


LEARNED_INVERSE = {f.__name__: f for f in (self_normalizing, free_form)}
