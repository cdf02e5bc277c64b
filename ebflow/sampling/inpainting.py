"""Missing elements of images, sampled given the others, and the error of what is filled in."""

from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from ..bijections.weighted import fixed_weights
from ..evaluation import Estimate
from ..flow import Flow
from ..randomness import normal
from .langevin import Sampler


@dataclass(frozen=True)
class Inpainted:
    """Images whose missing elements have been sampled."""

    #: K completed copies of every image, with shape (N, K, *event), in the type of the images.
    #: Observed elements are unchanged.
    samples: Tensor
    missing: Tensor  #: True where an element was missing, with shape (N, *event)


@torch.no_grad()
def inpaint(
    flow: Flow,
    x: Tensor,
    missing: Tensor,
    *,
    generator: torch.Generator,
    sampler: Sampler,
    samples: int = 1,
) -> Inpainted:
    """Samples the missing elements of images given the others, by a Markov chain.

    Chains run after the leading layers that treat every element alike: dequantization and the
    logit. There, the missing elements start as N(0, 1). Whitening and standardization are part of
    the density that the chains sample.

    For rows of a table, ``ebflow.imputation.impute`` needs no chain to be tuned.

    Cost: the sampler's, of N K images: 2 L GEMMs a step of a dense flow, one score.

    Arguments:
        flow: The flow, preprocessing included.
        x: Raw images with shape (N, *event); values of missing elements are not used.
        missing: True where an element is missing, broadcastable to ``x``.
        generator: The source of all random numbers.
        sampler: The chain, for example ``langevin`` or ``adaptive_langevin`` with their options.
        samples: The number K ≥ 1 of completed copies.

    Raises:
        ValueError: if a shape does not suit the flow, or ``samples`` is less than 1.
        NonFinite: if a chain diverges.
    """
    if samples < 1:
        raise ValueError(f"samples: found {samples}, expected at least 1")
    x = flow.as_events(x)
    missing = torch.as_tensor(missing, device=x.device).expand(x.shape)
    leading = list(takewhile(lambda layer: layer.pixelwise, flow.layers))
    elementwise = Flow(flow.event_shape, leading, n_preprocessing=len(leading))
    elementwise = elementwise.to(flow.device, flow.dtype)
    rows, free = (t.repeat_interleave(samples, 0) for t in (x, missing))
    with fixed_weights(flow):
        y = elementwise.preprocess(rows.masked_fill(free, 0), generator=generator)
        y = torch.where(free, normal(y.shape, y, generator), y)
        density = flow.after(len(leading))
        free = free.view(len(free), *density.event_shape)
        y = sampler(density, y.view(free.shape), generator=generator, free=free)
        filled = elementwise.from_latent(y.view(rows.shape)).to(x.dtype)
    found = torch.where(free.view(rows.shape), filled, rows)
    return Inpainted(found.view(len(x), samples, *x.shape[1:]), missing)


def imputation_error(truth: Tensor, imputed: Tensor, missing: Tensor) -> Estimate:
    """Returns the root-mean-square error of missing elements, in the units of the data.

    A sample of the true conditional distribution has √2 times the error of its mean. To judge the
    mean, average several samples. The standard error is that of a ratio of sums over images, by
    the delta method.

    Arguments:
        truth: Raw data with shape (B, *event).
        imputed: The filled data, broadcastable to ``truth``.
        missing: True where an element was missing, broadcastable to ``truth``.

    Raises:
        ValueError: if nothing is missing.
    """
    missing = missing.expand(truth.shape)
    if not missing.any():
        raise ValueError("missing: found no missing element, expected at least one")
    squares = ((imputed.double() - truth.double()).square() * missing).flatten(1).sum(1)
    counts = missing.flatten(1).sum(1).double()
    mean_square = squares.sum() / counts.sum()
    found = Estimate.of((squares - mean_square * counts) / counts.mean(), name="imputation")
    error = float(mean_square.sqrt())
    return Estimate(error, found.se / (2 * error) if error else 0.0, found.count)
