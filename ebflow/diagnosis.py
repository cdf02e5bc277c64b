r"""Why a training stands still, or broke.

A flow that loses mass keeps its training loss falling while its likelihood rises. The symptom is
in the latent, which of the data should be N(0, I): one direction's mean runs away while its
variance shrinks, a linear term of the energy. Both are cheap to watch: O(B D) for the mean and
O(B D P) for the variance along P probes, of which the first is the direction of the mean.
"""

__all__ = ["Validation", "diagnose", "latent_statistics", "where_non_finite"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .distribution import FlowDistribution
from .randomness import generator as derive


@torch.no_grad()
def latent_statistics(u: Tensor, *, probes: int = 16, seed: int = 0) -> dict[str, float]:
    """Returns how the latents of a batch differ from N(0, I).

    Arguments:
        u: Latents of data, with shape (B, D) after flattening.
        probes: The number of random directions.
        seed: Where they come from.

    Returns:
        ``latent/mean_norm2``: ‖mean‖² without its bias tr(Cov)/B, 0 at the truth;
        ``latent/var_min`` and ``latent/var_max``: the extreme variances along the probes and the
        direction of the mean, 1 at the truth.
    """
    u = u.flatten(1)
    mean = u.mean(0)
    centred = u - mean
    bias = centred.square().sum() / (len(u) * max(len(u) - 1, 1))
    random = torch.randn(probes, u.shape[1], generator=derive(seed, "probes")).to(u)
    directions = torch.cat([mean[None], random])
    directions = directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-30)
    variances = (centred @ directions.mT).square().sum(0) / max(len(u) - 1, 1)
    return {
        "latent/mean_norm2": float(mean.square().sum() - bias),
        "latent/var_min": float(variances.min()),
        "latent/var_max": float(variances.max()),
    }


@dataclass(frozen=True)
class Validation:
    """What a training has reached at a validation.

    Attributes:
        nll: The validation NLL in nats.
        train_nll: That of as many training rows.
        loss: The training loss before it.
    """

    nll: float = math.inf
    train_nll: float = math.inf
    loss: float = math.nan


def diagnose(now: Validation, best: Validation, latent: dict[str, float]) -> str:
    """Returns one line on why the validation NLL has stopped falling.

    If the training rows' likelihood still improves, the flow over-fits. If it gets worse too,
    though the loss falls, the loss does not see what the likelihood pays for.

    Arguments:
        now: The present standing.
        best: The one at the lowest validation NLL.
        latent: ``latent_statistics`` of the validation split.
    """
    told = (
        f"validation NLL {now.nll:.1f}, best {best.nll:.1f}; training NLL {best.train_nll:.1f} → "
        f"{now.train_nll:.1f}; training loss {best.loss:.4g} → {now.loss:.4g}"
    )
    if now.train_nll < best.train_nll:
        return f"{told}: over-fitting. Use more data, fewer steps, or patience"
    if not now.loss < best.loss:
        return f"{told}: training has converged, or the learning rate is too high"
    return (
        f"{told}: the loss falls while the likelihood of the training rows gets worse. Score "
        "matching is blind to mass: the latent mean has squared norm "
        f"{latent['latent/mean_norm2']:.3g} (0 at the truth) and a direction of variance "
        f"{latent['latent/var_min']:.2g} (1 at the truth). Raise the anchor's weight, or refresh "
        "it more often"
    )


@torch.no_grad()
def where_non_finite(density: FlowDistribution, x: Tensor) -> str:
    """Returns where a flow's numbers first cease to be finite, from data to latent.

    If none does, it is the layer of the largest output.

    Arguments:
        density: The flow, given its context.
        x: Rows of data, with shape (B, *event).
    """
    largest, reached = "the data", 0.0
    for index, layer in enumerate(density.layers):
        name = f"layer {index} ({type(layer).__name__.strip('_')})"
        if parameter := _non_finite_parameter(layer):
            return f"{name}, parameter {parameter}"
        x, log_det = layer.forward_and_log_det(x)
        for what, value in (("output", x), ("log-determinant", log_det)):
            if not value.isfinite().all():
                return f"{name}, its {what}"
        if float(x.abs().max()) > reached:
            largest, reached = name, float(x.abs().max())
    if parameter := _non_finite_parameter(density.base):
        return f"the base ({type(density.base).__name__}), parameter {parameter}"
    return f"{largest}, whose output reaches {reached:.3g}"


def _non_finite_parameter(module: nn.Module) -> str | None:
    return next((k for k, t in module.named_parameters() if not t.isfinite().all()), None)
