"""From prepared data to a density of another package, fitted as its users do, and its likelihood.

A peer stands behind the chain of a flow: it has the same dequantization, by the same draws, and
the same logit; its likelihood is in units of the raw data. ``maf`` and ``nsf`` are zuko's masked
autoregressive flows, affine and rational-quadratic, of the sizes in zuko's README; ``gmm`` is
scikit-learn's mixture of Gaussians with full covariances, their number that of the best
validation, and ``kde`` a Gaussian at every training row, its width likewise.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import zuko
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ebflow.bases import Base
from ebflow.errors import NonFinite
from ebflow.evaluation import log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import Generator, RowGenerator, generator
from pipelines.data.dataset import Dataset
from pipelines.density.evaluate import LOG_PROBS, likelihood
from pipelines.paper.config import PeerConfig
from pipelines.tracking import metrics_log
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import CHAIN
from pipelines.training.stage_reports import begin, write_metrics

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


class Fitted(NamedTuple):
    """A fitted peer: its log-density, the best by validation, how it was made, and validations."""

    values: Values
    method: str
    curve: list[Point]


def peer(config: PeerConfig, data: Path, preprocessed: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``, the rows' log-densities and the curve of validations.

    ``evaluation.json`` is empty where the data are too many or too wide for the peer.

    Raises:
        NonFinite: If a loss or likelihood was not finite.
    """
    dataset = begin(config, config.threads, data, run, "training")
    behind = Behind(dataset, Preprocessing.load(preprocessed / CHAIN))
    fitted = fit(config, behind)
    if fitted is None:
        write_metrics({}, run)
    else:
        write_metrics(_measured(behind, fitted, run.output), run, method=fitted.method)


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
        return self._preprocessing.preprocess(x, generator=noise)

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
    """Returns the best by validation; None where rows are too wide or too many for a peer.

    Raises:
        NonFinite: if a loss of a flow is infinite or NaN.
    """
    many = config.name == "kde" and len(data.dataset.split("train")) > MOST
    if config.name != "gmm" and (data.width > WIDEST or many):
        return None
    tried = list({"gmm": _mixtures, "kde": _kernels}.get(config.name, _flows)(config, data))
    _, values, method = min(tried, key=lambda one: one[0].nll)
    return Fitted(values, method, [point for point, *_ in tried])


Tried = Iterator[tuple[Point, Values, str]]
"""What was tried, one after another, and how each was made."""


def _flows(config: PeerConfig, data: Behind) -> Tried:
    """Yields a flow whenever it is validated, before the first step too; trained by Adam."""
    with torch.random.fork_rng(devices=()):  # zuko draws weights from PyTorch's global state
        torch.manual_seed(generator(config.seed, "peer", config.name).initial_seed())
        flow = FLOWS[config.name](data.width, **SIZES)
    method = f"zuko {config.name.upper()}, {SIZES}, Adam {RATE:g}, batch {BATCH}"
    optimizer = torch.optim.Adam(flow.parameters(), lr=RATE)
    limit, spent, due = config.seconds or math.inf, 0.0, 0.0
    batches = data.batches(config.seed)
    for step in range(config.steps + 1):
        over = spent >= limit or step == config.steps
        if over or (spent >= due if config.seconds else step % EVERY == 0):
            values = partial(_log_prob, copy.deepcopy(flow))
            point = Point(step, spent, data.nll(values))
            yield point, values, f"{method}, best by validation"
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


@torch.no_grad()
def _log_prob(flow: zuko.flows.Flow, x: Tensor) -> Tensor:
    return flow().log_prob(x.float())


def _mixtures(config: PeerConfig, data: Behind) -> Tried:
    """Yields mixtures of more and more Gaussians, as the seconds allow, the first in any case."""
    rows, limit = data.rows("train", config.seed).numpy(), config.seconds or math.inf
    spent, best, stale = 0.0, math.inf, 0
    for number in [k for k in NUMBERS if k <= len(rows)]:
        began = time.perf_counter()
        mixture = GaussianMixture(number, reg_covar=1e-6, random_state=config.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(rows)
        spent += time.perf_counter() - began
        values = partial(_scores, mixture)
        nll = data.nll(values)
        method = f"GaussianMixture, full covariances, {number} of {NUMBERS} components"
        yield Point(number, spent, nll), values, f"scikit-learn {method}"
        best, stale = min(best, nll), 0 if nll < best else stale + 1
        if stale == PATIENCE or spent >= limit:
            return


def _scores(mixture: GaussianMixture, x: Tensor) -> Tensor:
    return torch.from_numpy(mixture.score_samples(x.numpy()))


def _kernels(config: PeerConfig, data: Behind) -> Tried:
    """Yields the kernels of the best width, in whitened units."""
    began, rows = time.perf_counter(), data.rows("train", config.seed)
    nlls = {width: data.nll(partial(kernels, rows, width)) for width in WIDTHS}
    best = min(nlls, key=nlls.__getitem__)
    point = Point(1, time.perf_counter() - began, nlls[best])
    method = f"Gaussian kernels of width {best:.3g} in whitened units, of {len(WIDTHS)} widths"
    yield point, partial(kernels, rows, best), method


def kernels(rows: Tensor, width: float, x: Tensor) -> Tensor:
    """Returns the log-density of Gaussians of a width at rows with shape (N, D).

    Not scikit-learn's, whose trees lose the digits of it in some dozen dimensions.
    """
    count, size = rows.shape
    constant = math.log(count) + size * (math.log(width) + 0.5 * math.log(2 * math.pi))
    parts = x.split(max(1, PAIRS // count))
    squares = (torch.cdist(part, rows).square() for part in parts)
    return torch.cat([(-0.5 / width**2 * s).logsumexp(1) for s in squares]) - constant


def _measured(data: Behind, fitted: Fitted, output: Path) -> dict[str, float]:
    """Returns the likelihoods, as ``evaluate`` names them; writes those of rows, and the curve."""
    found = {split: data.log_probs(split, fitted.values) for split in ("test", "validation")}
    np.savez(output / LOG_PROBS, **{split: values.numpy() for split, values in found.items()})
    for point in fitted.curve:
        metrics = {"val/nll": point.nll, "time/train_s": point.seconds}
        row = metrics_log.row("validate", point.step, 1.0, metrics=metrics)
        metrics_log.append(output / metrics_log.FILE, [row])
    return {
        "time/train_s": fitted.curve[-1].seconds,
        "train/steps": fitted.curve[-1].step,
        **likelihood("test/", found["test"], data.width),
        **likelihood("best/val_", found["validation"], data.width),
    }
