r"""Saliency of pixels, and the area over the curve when the most salient segments are removed.

Saliency is one number for each pixel, from gradients of all its colours: their norm, or their
standard deviation as in the paper's code.

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128, and its code (deviation); IROF: a low resource
evaluation metric for explanation methods (Rieger, Hansen, 2020), arXiv:2003.08747, whose segments
are superpixels, here patches of a fixed grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .logit import Classifier

GRID = 4  # Patches along each side of an image


def saliency(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the norms over colours of gradients (B, D), with shape (B, pixels).

    Without three dimensions (colours, height, width) every element is a pixel.
    """
    return _by_colour(rows, shape).norm(dim=1)


def deviation(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the standard deviations over colours of gradients (B, D), with shape (B, pixels).

    The paper's code uses it. A pixel whose colours have equal gradients has none, however long
    they are.

    Raises:
        ValueError: If ``shape`` has fewer than two colours.
    """
    if len(shape) != 3 or shape[0] < 2:
        raise ValueError(f"shape: found {tuple(shape)}, expected several colours, (C, H, W)")
    return _by_colour(rows, shape).std(dim=1)


def magnitude(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the distance of each pixel from the image's mean, with shape (B, pixels).

    It is a control that knows no classifier: perturbation fills pixels with this mean.
    """
    return saliency(x - x.mean(1, keepdim=True), shape)


def _by_colour(rows: Tensor, shape: Sequence[int]) -> Tensor:
    return rows.view(len(rows), shape[0] if len(shape) == 3 else 1, -1)


def mean_filled(x: Tensor, missing: Tensor) -> Tensor:
    """Returns images (B, D) whose missing pixels, with shape (B, pixels), are the image's mean."""
    missing = missing.repeat(1, x.shape[1] // missing.shape[1])
    return torch.where(missing, x.mean(1, keepdim=True), x)


def patches(shape: Sequence[int], count: int = GRID) -> Tensor:
    """Returns the number of the patch of every pixel, with shape (pixels,).

    There are ``count`` patches along each side, or as many as there are pixels along it.
    """
    height, width = shape[-2:]
    rows = torch.arange(height) * min(count, height) // height
    columns = torch.arange(width) * min(count, width) // width
    return (rows.unsqueeze(1) * min(count, width) + columns).flatten()


@torch.no_grad()
def irof(
    network: Classifier, x: Tensor, labels: Tensor, salience: Tensor, segments: Tensor
) -> Tensor:
    """Returns the areas over the curves of p(y | x) / p(y | whole x), with shape (B,).

    Segments are filled with the image's mean in the order of their mean salience, the largest
    first. The curve is over the share of filled segments, by the trapezoid rule. The area is 0 if
    the classifier does not react, and at most 1. As many passes as segments, and one.

    Arguments:
        network: A function from points (B, D) to logits (B, C).
        x: Images with shape (B, D), which the classifier has right: else the ratio may be large.
        labels: Their classes with shape (B,).
        salience: That of each pixel, with shape (B, pixels).
        segments: The segment of every pixel, from 0 on, with shape (pixels,).
    """
    sizes = segments.bincount()
    empty = salience.new_zeros(len(x), len(sizes))
    means = empty.index_add_(1, segments, salience) / sizes
    ranks = means.argsort(dim=1, descending=True, stable=True).argsort(1)[:, segments]
    shares = [
        network(mean_filled(x, ranks < count)).softmax(1).gather(1, labels.unsqueeze(1))
        for count in range(len(sizes) + 1)
    ]
    curve = torch.cat(shares, 1) / shares[0]
    return 1 - torch.trapezoid(curve, dx=1 / len(sizes))
