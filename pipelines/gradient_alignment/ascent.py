r"""Activity maximization: pictures with large logits of a classifier.

.. math:: x \leftarrow \operatorname{clip}\left(
    x + \eta \, (\nabla f_y(x) - \lambda (x - \tfrac12)), 0, 1 \right)

from :math:`x_0 \sim N(\tfrac12, 0.2^2)`, clipped to [0, 1].

It is gradient ascent without noise: the result is a picture near a mode, not a sample. The
*GAN-test* is the accuracy of an independently trained classifier on such pictures.

Source: Srinivas, Fleuret (2021), arXiv:2006.09128, and its code: 500 steps of η = 0.1, λ = 0.01.
"""

__all__ = ["maximize"]

import torch
from torch import Tensor

from ebflow.alignment.logit import Classifier, ClassLogit
from ebflow.randomness import normal


def maximize(
    network: Classifier,
    labels: Tensor,
    *,
    width: int,
    generator: torch.Generator,
    steps: int = 500,
    rate: float = 0.1,
    decay: float = 0.01,
) -> Tensor:
    """Returns pictures with shape (B, D) in [0, 1]; one forward and one backward pass per step.

    Arguments:
        network: The classifier.
        labels: The logits to maximize, with shape (B,).
        width: D.
        generator: The source of the starts, on the device of the labels.
        steps: The number of steps.
        rate: η, in squared units of the data.
        decay: λ.
    """
    density = ClassLogit(network, labels)
    like = torch.empty(0, device=labels.device)
    x = (0.5 + 0.2 * normal((len(labels), width), like, generator)).clamp(0, 1)
    for _ in range(steps):
        gradient = density.score(x).detach()
        x = (x + rate * (gradient - decay * (x - 0.5))).clamp(0, 1)
    return x
