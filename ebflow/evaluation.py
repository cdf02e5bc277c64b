"""The likelihood of data by a flow, and the reasons why a training stops improving.

The negative log-likelihood (NLL) is in nats per example, in the units of the raw data. It includes
the log-determinant of the preprocessing. Bits per dimension are NLL / (D log 2).

If a flow loses mass, its training loss falls while its NLL rises: the mean of one latent direction
grows, and its variance shrinks.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .bijections.base import products
from .bijections.weighted import fixed_weights
from .errors import NonFinite
from .flow import Flow
from .randomness import ContentGenerator, Generator
from .randomness import generator as derive
from .tables import ArrayLike
from .tables.adapter import differing
from .tables.rows import Rows


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo mean over ``count`` examples; its standard error is NaN for a single one."""

    value: float
    se: float
    count: int

    @classmethod
    def of(cls, terms: Tensor, *, name: str) -> "Estimate":
        """Averages ``terms`` with shape (N,), in float64.

        Raises:
            NonFinite: if one of them is infinite or NaN, with its number.
        """
        bad = (~terms.isfinite()).nonzero()
        if len(bad):
            raise NonFinite(f"{name}: found {terms[bad[0, 0]]} at example {bad[0, 0]}")
        terms, count = terms.double(), len(terms)
        spread = float(terms.std()) if count > 1 else math.nan
        return cls(float(terms.mean()), spread / math.sqrt(count), count)


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of one split."""

    nll: float  #: The mean NLL in nats per example
    nll_se: float  #: Its standard error over examples, dequantization noise included
    bpd: float  #: Bits per dimension
    count: int

    @classmethod
    def of(cls, log_probs: Tensor, size: int) -> "Likelihood":
        """Returns that of log-densities (N,) of events with ``size`` elements.

        Raises:
            NonFinite: as ``Estimate.of``.
        """
        mean = Estimate.of(log_probs, name="log p")
        return cls(-mean.value, mean.se, -mean.value / (size * math.log(2)), mean.count)


def evaluate(flow: Flow, split: ArrayLike, **options: Any) -> Likelihood:  # noqa: ANN401
    """Returns the likelihood of a split; arguments and errors as in ``log_probs``."""
    return Likelihood.of(log_probs(flow, split, **options), math.prod(flow.event_shape))


@torch.no_grad()
def log_probs(
    flow: Flow,
    split: ArrayLike,
    *,
    context: ArrayLike | None = None,
    samples: int = 1,
    batch_size: int = 1000,
    seed: int = 0,
    generator: Generator | None = None,
    importance_weighted: bool = False,
) -> Tensor:
    """Returns the log-density of every example, (N,); O(D³ L) once, O(N D² L) per sample.

    Products have the full precision: PyTorch itself would round convolutions to TF32 on GPUs.

    Arguments:
        split: The data: a split of a prepared folder, ``Rows``, a table, or a tensor (N, *event)
            of finite bytes or reals, as for ``flow.log_prob``.
        context: The context of ``x``, as in ``flow.log_prob``.
        samples: Samples of the dequantization noise. One sample with seed 0 is ``flow.log_prob``.
        batch_size: Rows at a time.
        seed: That of the noise, which is a function of a row's values.
        generator: The source of a single sample instead, which differs in equal rows.
        importance_weighted: True if the samples of a row are averaged as densities, log mean exp,
            a tighter bound of the log-probability of integers than the mean of log-densities.

    Raises:
        NonFinite: by ``Likelihood.of``, if a log-density is infinite or NaN.
    """
    impossible = torch.tensor(False)
    if not hasattr(split, "batches"):
        impossible = differing(split, flow.columns)
        split = _rows(flow, split, context)
    with products("highest"), _evaluating(flow), fixed_weights(flow):
        log_z, log_p = flow.log_normalizer().double(), []
        hashed = [ContentGenerator(seed, k) for k in range(samples)]
        for noise in [generator] if generator else hashed:
            batches = (batch.to(flow.device) for batch in split.batches(batch_size))
            energies = (flow.energy(x, context=c, generator=noise) for x, c in batches)
            log_p.append(-torch.cat([energy.double() for energy in energies]) - log_z)
        values = torch.stack(log_p)
        mean = values.mean(0)
        if importance_weighted:
            mean = values.logsumexp(0) - math.log(len(values))
        if not impossible.any():
            return mean
        return mean.masked_fill(impossible.to(mean.device), -math.inf)


def _rows(flow: Flow, x: ArrayLike, context: ArrayLike | None) -> Rows:
    rows, context = flow.as_events(x), flow.as_context(flow.context_of(x, context))
    context = None if context is None else context.expand(len(rows), -1)
    levels = getattr(flow.dequantizer, "levels", None) if rows.dtype == torch.uint8 else None
    return Rows(rows, context, levels=levels, name="x")


@contextmanager
def _evaluating(flow: Flow) -> Iterator[None]:
    """Puts a flow into evaluation mode, and restores the mode of every module at the end."""
    modes = [(module, module.training) for module in flow.modules()]
    flow.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def latent_statistics(u: Tensor, *, seed: int = 0) -> dict[str, float]:
    """Returns the differences of a batch of latents from N(0, I), in O(B D P).

    ``latent/mean_norm2`` is ‖mean‖² without its bias tr(Cov)/B, 0 at the truth. ``latent/var_min``
    and ``latent/var_max`` are the extreme variances along the direction of the mean and P = 16
    random ones, 1 at the truth.
    """
    u = u.flatten(1)
    mean = u.mean(0)
    centred = u - mean
    bias = centred.square().sum() / (len(u) * max(len(u) - 1, 1))
    random = torch.randn(16, u.shape[1], generator=derive(seed, "probes")).to(u)
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
    """The NLL of a validation and of some training rows, and the training loss before it."""

    nll: float = math.inf
    train_nll: float = math.inf
    loss: float = math.nan


def diagnose(
    now: Validation, best: Validation, latent: dict[str, float], *, matching: bool = True
) -> str:
    """Returns one line on the reason why the validation NLL stopped falling.

    If the loss is not one of score ``matching``, it misses no part of the likelihood. ``latent``
    has the validation's ``latent_statistics``.
    """
    numbers = (
        f"validation NLL {now.nll:.2f}, best {best.nll:.2f}; training NLL {best.train_nll:.2f} → "
        f"{now.train_nll:.2f}; training loss {best.loss:.4g} → {now.loss:.4g}"
    )
    if now.train_nll < best.train_nll:
        return f"{numbers}: over-fitting. Use more data, fewer steps, or patience"
    if not now.loss < best.loss:
        return f"{numbers}: training has converged, or the learning rate is too high"
    worse = f"{numbers}: the loss falls while the likelihood of the training rows gets worse"
    if not matching:
        return f"{worse}. Lower the learning rate, or raise the batch size"
    return (
        f"{worse}. Score matching is blind to mass: the latent mean has squared norm "
        f"{latent['latent/mean_norm2']:.3g} (0 at the truth) and a direction of variance "
        f"{latent['latent/var_min']:.2g} (1 at the truth). Raise the anchor's weight, or refresh "
        "it more often"
    )
