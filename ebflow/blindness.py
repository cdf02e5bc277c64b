r"""Seeing what score matching cannot.

A flow that loses mass keeps its training loss falling while its likelihood rises. The symptom is
in the latent, which of the data should be N(0, I): one direction's mean runs away while its
variance shrinks, a linear term of the energy. Both are cheap to watch: O(B D) for the mean and
O(B D P) for the variance along P probes, of which the first is the direction of the mean.
"""

__all__ = ["diagnose", "latent_statistics"]

import torch
from torch import Tensor

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


def diagnose(
    nll: float, best: float, loss: float, loss_at_best: float, latent: dict[str, float]
) -> str:
    """Returns one line on why the validation NLL has stopped falling.

    Arguments:
        nll: The present validation NLL, and ``best`` the lowest one, in nats.
        best: See ``nll``.
        loss: The present training loss, and ``loss_at_best`` the one at the lowest NLL.
        loss_at_best: See ``loss``.
        latent: ``latent_statistics`` of the validation split.
    """
    told = (
        f"validation NLL {nll:.1f}, best {best:.1f}; training loss {loss_at_best:.4g} → {loss:.4g}"
    )
    if loss >= loss_at_best:
        return f"{told}: training has converged"
    mean, least = latent["latent/mean_norm2"], latent["latent/var_min"]
    if mean > 1 and least < 0.5:
        return (
            f"{told}: the loss falls while the likelihood gets worse. Score matching is blind to "
            f"mass: the latent mean has squared norm {mean:.3g} (0 at the truth) and a direction "
            f"of variance {least:.2g} (1 at the truth). Raise the anchor's weight, or refresh it "
            "more often"
        )
    return f"{told}: the loss falls while the likelihood gets worse, as when over-fitting"
