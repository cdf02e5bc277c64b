r"""Published metrics of attributions, which need only the network and no reference.

* *ROAD* replaces the most, or the least, salient fraction q of the pixels, and measures the
  network's accuracy on the result. A missing pixel is the weighted mean of its neighbours (1/6,
  and 1/12 across corners) plus noise of 0.01. If neighbours are missing too, this is a linear
  system: ``imputed``, as the fill of ``perturbation.accuracies``.
* *IROF* removes whole segments, the most salient first: ``irof``.
* *Randomization of parameters*: the rank correlation of an attribution with that of the network
  with new random parameters, in all layers or the last one: ``rank_correlation``. An attribution
  that does not change does not depend on the trained network.

Source: A Consistent and Efficient Evaluation Strategy for Attribution Methods (Rong, Leemann,
Borisov, Kasneci, Kasneci, 2022), arXiv:2202.00449; IROF: a low resource evaluation metric for
explanation methods (Rieger, Hansen, 2020), arXiv:2003.08747, whose segments are superpixels, here
patches of a fixed grid; Sanity Checks for Saliency Maps (Adebayo et al., 2018), arXiv:1810.03292.
"""

__all__ = ["imputed", "irof", "patches", "rank_correlation", "with_last_of"]

import copy
from collections.abc import Sequence

import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from ..randomness import normal
from .logit import Classifier
from .perturbation import mean_filled

NOISE = 0.01
"""Standard deviation of the noise on imputed pixels."""

TOLERANCE = 1e-14
"""Relative tolerance of the squared residual of an imputation."""

GRID = 4
"""Patches along each side of an image."""

NEIGHBOURS = torch.tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]], dtype=torch.float64) / 12


def imputed(
    x: Tensor,
    missing: Tensor,
    shape: Sequence[int],
    generator: torch.Generator,
    *,
    noise: float = NOISE,
) -> Tensor:
    """Returns images with the weighted mean of the neighbours, plus noise, for missing pixels.

    Arguments:
        x: Images with shape (B, D).
        missing: True for the missing pixels of each image, with shape (B, P).
        shape: (H, W) or (C, H, W).
        generator: The source of the noise.
        noise: Its standard deviation.

    Raises:
        ValueError: if all pixels of an image are missing.
    """
    if missing.all(1).any():
        raise ValueError("missing: all pixels of an image; expected at least one observed pixel")
    height, width = shape[-2:]
    images = x.double().view(-1, 1, height, width)
    holes = missing.repeat_interleave(x.shape[1] // missing.shape[1], 0).view_as(images)
    total = _neighbours(torch.ones_like(images[:1]))

    def balance(values: Tensor) -> Tensor:
        return torch.where(holes, total * values - _neighbours(values), 0)

    known = images.masked_fill(holes, 0)
    filled = _conjugate_gradients(balance, -balance(known))
    noisy = torch.add(filled, normal(images.shape, images, generator), alpha=noise)
    return torch.where(holes, noisy, images).view_as(x).to(x)


def _neighbours(images: Tensor) -> Tensor:
    """Returns the weighed sums of neighbours within an image, from (N, 1, H, W) to the same."""
    return F.conv2d(images, NEIGHBOURS.to(images).view(1, 1, 3, 3), padding=1)


def _conjugate_gradients(product: Classifier, right: Tensor) -> Tensor:
    """Solves one positive definite system an image, of shape (N, 1, H, W), all at once."""
    found, residual, direction = torch.zeros_like(right), right, right
    power = _power(residual)
    enough = TOLERANCE * power
    for _ in range(right[0].numel()):
        if (power <= enough).all():
            break
        moved = product(direction)
        step = _quotient(power, (direction * moved).sum((1, 2, 3), keepdim=True))
        found, residual = found + step * direction, residual - step * moved
        last, power = power, _power(residual)
        direction = residual + _quotient(power, last) * direction
    return found


def _power(rows: Tensor) -> Tensor:
    return rows.square().sum((1, 2, 3), keepdim=True)


def _quotient(one: Tensor, other: Tensor) -> Tensor:
    """Returns one / other, 0 of a system that is solved to the last digit."""
    return torch.where(other > 0, one / other, 0)


def patches(shape: Sequence[int], count: int = GRID) -> Tensor:
    """Returns the patch of every pixel, with shape (P,), of ``count`` along each side.

    Of fewer pixels along a side, each is one.
    """
    rows, columns = (torch.arange(size) * min(count, size) // size for size in shape[-2:])
    return (rows.unsqueeze(1) * min(count, shape[-1]) + columns).flatten()


@torch.no_grad()
def irof(
    network: Classifier, x: Tensor, labels: Tensor, salience: Tensor, segments: Tensor
) -> Tensor:
    """Returns the areas over the curves of p(y | x) / p(y | whole x), with shape (B,).

    Segments are filled with the image's mean, in the order of their mean salience, the largest
    first; the curve is over their share, by the trapezoid rule. It is 0 of a network that does
    not mind, and at most 1.

    Arguments:
        network: The classifier.
        x: Images with shape (B, D), such as it has right: the ratio is to be at most of order 1.
        labels: y with shape (B,).
        salience: Of pixels, with shape (B, P).
        segments: The segment of every pixel, from 0 on, with shape (P,).
    """
    segments = segments.to(x.device)
    sizes = segments.bincount()
    means = torch.zeros_like(salience[:, : len(sizes)]).index_add_(1, segments, salience) / sizes
    ranks = means.argsort(dim=1, descending=True, stable=True).argsort(1)[:, segments]
    own = [
        network(mean_filled(x, ranks < count)).softmax(1).gather(1, labels.unsqueeze(1))
        for count in range(len(sizes) + 1)
    ]
    curve = torch.cat(own, 1) / own[0]
    return 1 - torch.trapezoid(curve, dx=1 / len(sizes))


def with_last_of(network: nn.Module, other: nn.Module) -> nn.Module:
    """Returns a network with the parameters of its last layer from another of its architecture."""
    made = copy.deepcopy(network)
    kept = other.state_dict()
    last = list(kept)[-1].rpartition(".")[0]
    taken = {name: value for name, value in kept.items() if name.rpartition(".")[0] == last}
    made.load_state_dict(made.state_dict() | taken)
    return made


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Returns Spearman's rank correlation of rows with shape (B, P), with shape (B,)."""
    ranks = [torch.from_numpy(rankdata(rows.cpu().numpy(), axis=1)) for rows in (a, b)]
    return F.cosine_similarity(*(rows - rows.mean(1, keepdim=True) for rows in ranks), dim=1)
