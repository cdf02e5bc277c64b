r"""Exact likelihood of a split, in the units of the raw data.

The negative log-likelihood (NLL) is in nats an example and counts the preprocessing's
log-determinant; bits/dim is NLL / (D log 2).
"""

__all__ = ["Evaluation", "evaluate", "log_probs"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .data.loader import Split
from .errors import NonFinite
from .flow import Flow
from .randomness import generator as derive


@dataclass(frozen=True)
class Evaluation:
    """The likelihood of one split.

    Attributes:
        nll: Mean negative log-likelihood in nats an example.
        nll_se: Its standard error over examples, dequantisation noise included.
        bpd: Bits a dimension.
        count: The number of examples.
    """

    nll: float
    nll_se: float
    bpd: float
    count: int

    @classmethod
    def of(cls, log_probs: Tensor, size: int) -> "Evaluation":
        """Summarises log-densities with shape (N,) of events with ``size`` elements.

        Raises:
            NonFinite: if one of them is infinite or NaN, naming the first.
        """
        bad = (~log_probs.isfinite()).nonzero()
        if len(bad):
            raise NonFinite(f"log p: found {log_probs[bad[0, 0]]} at example {bad[0, 0]}")
        nll, count = -float(log_probs.mean()), len(log_probs)
        spread = float(log_probs.std()) if count > 1 else math.nan
        return cls(nll, spread / math.sqrt(count), nll / (size * math.log(2)), count)


def evaluate(
    flow: Flow,
    split: Split,
    *,
    draws: int = 1,
    importance_weighted: bool = False,
    batch_size: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Returns the likelihood of a split; arguments and errors as in ``log_probs``."""
    found = log_probs(
        flow,
        split,
        draws=draws,
        importance_weighted=importance_weighted,
        batch_size=batch_size,
        seed=seed,
    )
    return Evaluation.of(found, split.width)


@torch.no_grad()
def log_probs(
    flow: Flow,
    split: Split,
    *,
    draws: int = 1,
    importance_weighted: bool = False,
    batch_size: int = 1000,
    seed: int = 0,
) -> Tensor:
    """Returns the log-density of every example, with shape (N,); O(D³ L) and O(N D² L) a draw.

    Arguments:
        flow: The flow, preprocessing included.
        split: The data.
        draws: Draws of the dequantisation noise. With one and seed 0, the NLL is minus the mean
            of ``flow.log_prob`` over the whole split.
        importance_weighted: Whether draws are averaged as densities, log mean exp, a tighter
            bound on the log-mass of integers, instead of as log-densities.
        batch_size: Rows at a time.
        seed: Where the noise comes from.

    Raises:
        NonFinite: by ``Evaluation.of``, if a log-density is infinite or NaN.
    """
    log_z = flow.log_normalizer().double()
    rows = []
    for draw in range(draws):
        noise = derive(seed, "dequantise", draw, device=flow.like.device)
        energies = [flow.energy(x, noise).double() for x, _ in split.batches(batch_size)]
        rows.append(-torch.cat(energies) - log_z)
    stacked = torch.stack(rows)
    return stacked.logsumexp(0) - math.log(draws) if importance_weighted else stacked.mean(0)
