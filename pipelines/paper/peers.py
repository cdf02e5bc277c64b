"""Densities of other packages, each fitted as its users do, behind the chain of a flow.

A peer has the same dequantisation, by the same draws, and the same logit as a flow; its
likelihood is in units of the raw data. ``maf`` and ``nsf`` are zuko's masked autoregressive flows,
affine and rational-quadratic, of the sizes in zuko's README; ``gmm`` is scikit-learn's mixture of
Gaussians with full covariances, their number that of the best validation, and ``kde`` a Gaussian
at every training row, its width likewise.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import zuko
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ebflow.bases import Base
from ebflow.data.loader import Dataset
from ebflow.errors import NonFinite
from ebflow.evaluation import log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import Generator, RowGenerator, generator
from pipelines.paper.config import PeerConfig

WIDEST, MOST = 100, 20_000
"""The most elements of a row, but for mixtures, and of kernels the most rows."""

FLOWS = {"maf": zuko.flows.MAF, "nsf": zuko.flows.NSF}
SIZES = {"transforms": 3, "hidden_features": (128, 128, 128)}
RATE, BATCH = 1e-3, 256
"""Of Adam: a constant rate, and the rows of a step at most."""

VALIDATIONS = 20
"""Validations of a training that is bounded by time."""

EVERY = 100
"""Steps between them, of one that is bounded by steps alone."""

NUMBERS = (1, 2, 3, 5, 8, 12, 20, 30, 50)
PATIENCE = 2
"""Numbers of Gaussians without a better one before no larger is tried."""

WIDTHS = torch.logspace(-1.5, 0.25, 15, dtype=torch.float64).tolist()
PAIRS = 1 << 22
"""Of rows and kernels at a time."""

Values = Callable[[Tensor], Tensor]
"""From rows behind the chain, with shape (B, D), to their log-densities, with shape (B,)."""


class Point(NamedTuple):
    """Where a fit stood: steps (of a mixture, Gaussians), seconds of fitting, validation NLL."""

    step: int
    seconds: float
    nll: float


@dataclass
class Fitted:
    """A fitted peer.

    Attributes:
        values: Its log-density, of the best by validation.
        method: What was fitted, and how; one line.
        curve: The validations, in order.
    """

    values: Values
    method: str
    curve: list[Point] = field(default_factory=list)


class Behind:
    """Creates the view of prepared data behind a chain.

    Arguments:
        dataset: The prepared data.
        chain: The chain, fitted to their training split.
    """

    def __init__(self, dataset: Dataset, chain: Preprocessing) -> None:
        self.dataset, self.chain = dataset, chain
        self.width = dataset.manifest.width
        self._preprocessing = self._flow(None)

    def rows(self, split: str, seed: int = 0) -> Tensor:
        """Returns a whole split behind the chain in float64, with shape (N, D)."""
        x = self.dataset.split(split).tensor()
        return self._carried(x, RowGenerator(seed, "peer", split))

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Yields random training batches behind the chain without end, in float32."""
        split = self.dataset.split("train")
        batches = split.shuffled(min(BATCH, len(split)), seed=seed)
        for step, batch in enumerate(batches):
            yield self._carried(batch.x, RowGenerator(seed, "peer", step)).float()

    def log_probs(self, split: str, values: Values) -> Tensor:
        """Returns the log-density of a split's raw rows, as ``evaluation.log_probs`` does."""
        return log_probs(self._flow(values), self.dataset.split(split))

    def nll(self, values: Values) -> float:
        """Returns the validation NLL."""
        return -float(self.log_probs("validation", values).mean())

    @torch.no_grad()
    def _carried(self, x: Tensor, noise: Generator) -> Tensor:
        return self._preprocessing.preprocess(x, noise)

    def _flow(self, values: Values | None) -> Flow:
        base = None if values is None else _Given(values)
        return Flow((self.width,), [], base=base).double().preprocessed(self.chain)


class _Given(Base):
    """A density of latents by its values alone."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.values = values

    def energy(self, x: Tensor) -> Tensor:
        return -self.values(x).double()

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        raise NotImplementedError("a peer is not sampled")


def fit(config: PeerConfig, data: Behind) -> Fitted | None:
    """Returns a fitted peer; None where rows are too wide or too many for it.

    Raises:
        NonFinite: if a loss of a flow is infinite or NaN.
    """
    if config.name == "gmm":
        return _mixture(config, data)
    many = config.name == "kde" and len(data.dataset.split("train")) > MOST
    if data.width > WIDEST or many:
        return None
    return _kernels(config, data) if config.name == "kde" else _flow(config, data)


def _flow(config: PeerConfig, data: Behind) -> Fitted:
    """Returns a flow trained by Adam, with its best weights by validation."""
    with torch.random.fork_rng(devices=()):  # zuko draws weights from PyTorch's global state
        torch.manual_seed(generator(config.seed, "peer", config.name).initial_seed())
        flow = FLOWS[config.name](data.width, **SIZES)

    @torch.no_grad()
    def values(x: Tensor) -> Tensor:
        return flow().log_prob(x.float())

    method = f"zuko {config.name.upper()}, {SIZES}, Adam {RATE:g}, batch {BATCH}"
    fitted, best = Fitted(values, f"{method}, best by validation"), math.inf
    for step, seconds in _trained(config, flow, data):
        point = Point(step, seconds, data.nll(values))
        fitted.curve.append(point)
        if point.nll < best:
            best, kept = point.nll, copy.deepcopy(flow.state_dict())
    flow.load_state_dict(kept)
    return fitted


def _trained(
    config: PeerConfig, flow: zuko.flows.Flow, data: Behind
) -> Iterator[tuple[int, float]]:
    """Trains; yields steps and seconds when it is to be validated, before the first step too."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=RATE)
    limit, spent, due = config.seconds or math.inf, 0.0, 0.0
    batches = data.batches(config.seed)
    for step in range(config.steps + 1):
        over = spent >= limit or step == config.steps
        if over or (spent >= due if config.seconds else step % EVERY == 0):
            yield step, spent
            due += limit / VALIDATIONS
        if over:
            return
        began = time.perf_counter()
        loss = -flow().log_prob(next(batches)).mean()
        if not loss.isfinite():
            raise NonFinite(f"{config.name}: step {step}: found a loss of {float(loss.detach())}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        spent += time.perf_counter() - began


def _mixture(config: PeerConfig, data: Behind) -> Fitted:
    """Returns the best of the mixtures that the seconds allow, the first in any case."""
    rows, found = data.rows("train", config.seed).numpy(), []
    spent, best, stale = 0.0, math.inf, 0
    for number in [k for k in NUMBERS if k <= len(rows)]:
        began = time.perf_counter()
        mixture = GaussianMixture(number, reg_covar=1e-6, random_state=config.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(rows)
        spent += time.perf_counter() - began
        values = _mixed(mixture)
        found.append((Point(number, spent, data.nll(values)), values))
        nll = found[-1][0].nll
        best, stale = min(best, nll), 0 if nll < best else stale + 1
        if stale == PATIENCE or spent >= (config.seconds or math.inf):
            break
    point, values = min(found, key=lambda one: one[0].nll)
    method = (
        f"scikit-learn GaussianMixture, full covariances, {point.step} of {NUMBERS} components"
    )
    return Fitted(values, method, [point for point, _ in found])


def _mixed(mixture: GaussianMixture) -> Values:
    def values(x: Tensor) -> Tensor:
        return torch.from_numpy(mixture.score_samples(x.numpy()))

    return values


def _kernels(config: PeerConfig, data: Behind) -> Fitted:
    """Returns the kernels of the best width, in whitened units."""
    began, rows = time.perf_counter(), data.rows("train", config.seed)
    nlls = {h: data.nll(kernels(rows, h)) for h in WIDTHS}
    best = min(nlls, key=nlls.__getitem__)
    point = Point(1, time.perf_counter() - began, nlls[best])
    method = f"Gaussian kernels of width {best:.3g} in whitened units, of {len(WIDTHS)} widths"
    return Fitted(kernels(rows, best), method, [point])


def kernels(rows: Tensor, width: float) -> Values:
    """Returns the log-density of Gaussians of a width at rows with shape (N, D).

    Not scikit-learn's, whose trees lose the digits of it in some dozen dimensions.
    """
    count, size = rows.shape
    constant = math.log(count) + size * (math.log(width) + 0.5 * math.log(2 * math.pi))

    def values(x: Tensor) -> Tensor:
        parts = x.split(max(1, PAIRS // count))
        squares = (torch.cdist(part, rows).square() for part in parts)
        return torch.cat([(-0.5 / width**2 * s).logsumexp(1) for s in squares]) - constant

    return values
