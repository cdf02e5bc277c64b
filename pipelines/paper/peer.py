"""From prepared data to a density of another package, fitted as its users do, and its likelihood.

A peer sees data behind the preprocessing of a flow: the same dequantization, by the same noise,
and the same logit. Its likelihood is in units of the raw data. ``maf`` and ``nsf`` are zuko's
masked autoregressive flows, affine and rational-quadratic, of the sizes in zuko's README. ``gmm``
is scikit-learn's mixture of Gaussians with full covariances, whose number validation chooses.
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
from pipelines import metrics_log
from pipelines.data.dataset import Dataset
from pipelines.density.evaluate import LOG_PROBS, likelihood
from pipelines.paper.config import PeerConfig
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import PREPROCESSING

FLOWS = {"maf": zuko.flows.MAF, "nsf": zuko.flows.NSF}
SIZES = {"transforms": 3, "hidden_features": (128, 128, 128)}
RATE, BATCH = 1e-3, 256

VALIDATIONS = 20
"""Validations of a flow in the seconds of its training."""

NUMBERS = (1, 2, 3, 5, 8, 12, 20, 30, 50)
PATIENCE = 2
"""Numbers of Gaussians without an improvement after which no larger one is tried."""


class Candidate(NamedTuple):
    """A density of raw rows at one point of a fit.

    ``step`` is that of a flow, or the number of Gaussians; ``nll`` is of validation rows.
    """

    nll: float
    step: int
    seconds: float
    density: Flow


def peer(config: PeerConfig, data: Path, preprocessed: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``, the rows' log-densities and the curve of validations."""
    dataset = run.open(config, Dataset(data))
    tried = fit(config, Preprocessed(dataset, Preprocessing.load(preprocessed / PREPROCESSING)))
    for one in tried:
        metrics = {"val/nll": one.nll, "time/train_s": one.seconds}
        row = metrics_log.row("validate", one.step, 1.0, metrics=metrics)
        metrics_log.append(run.output / metrics_log.FILE, [row])
    best = min(tried, key=lambda one: one.nll)
    test, validation = (
        log_probs(best.density, dataset.split(split)) for split in ("test", "validation")
    )
    np.savez(run.output / LOG_PROBS, test=test.numpy(), validation=validation.numpy())
    run.write_metrics({
        "time/train_s": tried[-1].seconds,
        "train/steps": tried[-1].step,
        **likelihood("test/", test, dataset.manifest.width),
        **likelihood("best/val_", validation, dataset.manifest.width),
    })  # fmt: skip


class Preprocessed:
    """Prepared data behind a fitted preprocessing."""

    def __init__(self, dataset: Dataset, preprocessing: Preprocessing) -> None:
        self.dataset, self.preprocessing = dataset, preprocessing
        self.width = dataset.manifest.width

    def rows(self, seed: int) -> Tensor:
        """Returns the training rows in float64, preprocessed, with shape (N, D)."""
        x = self.dataset.split("train").tensor()
        return self._preprocess(x, RowGenerator(seed, "peer", "train"))

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Yields random training batches without end, preprocessed, in float32."""
        split = self.dataset.split("train")
        batches = split.shuffled(min(BATCH, len(split)), seed=seed)
        for step, batch in enumerate(batches):
            yield self._preprocess(batch.x, RowGenerator(seed, "peer", step)).float()

    def candidate(
        self, step: int, seconds: float, values: Callable[[Tensor], Tensor]
    ) -> Candidate:
        """Returns the density of raw rows, from the log-densities of preprocessed rows."""
        flow = self._flow(_Values(values))
        nll = -float(log_probs(flow, self.dataset.split("validation")).mean())
        return Candidate(nll, step, seconds, flow)

    @torch.no_grad()
    def _preprocess(self, x: Tensor, noise: Generator) -> Tensor:
        return self._flow().preprocess(x, generator=noise)

    def _flow(self, base: Base | None = None) -> Flow:
        return Flow((self.width,), [], base=base).double().preprocessed(self.preprocessing)


class _Values(Base):
    """A density of latents by its values alone."""

    def __init__(self, values: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.values = values

    def energy(self, x: Tensor) -> Tensor:
        return -self.values(x).double()

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        raise NotImplementedError("a peer is not sampled")


def fit(config: PeerConfig, data: Preprocessed) -> list[Candidate]:
    """Returns all candidates; raises NonFinite if a loss of a flow is infinite or NaN."""
    return list((_mixtures if config.name == "gmm" else _flows)(config, data))


def _flows(config: PeerConfig, data: Preprocessed) -> Iterator[Candidate]:
    """Yields a flow at each validation; trained by Adam."""
    with torch.random.fork_rng(devices=()):  # zuko draws weights from PyTorch's global state
        torch.manual_seed(generator(config.seed, "peer", config.name).initial_seed())
        flow = FLOWS[config.name](data.width, **SIZES)
    optimizer = torch.optim.Adam(flow.parameters(), lr=RATE)
    spent, due, batches = 0.0, 0.0, data.batches(config.seed)
    for step in range(config.steps + 1):
        over = spent >= config.seconds or step == config.steps
        if over or spent >= due:
            yield data.candidate(step, spent, partial(_log_prob, copy.deepcopy(flow)))
            due += config.seconds / VALIDATIONS
        if over:
            return
        start = time.perf_counter()
        loss = -flow().log_prob(next(batches)).mean()
        if not loss.isfinite():
            raise NonFinite(f"{config.name}: step {step}: found a loss of {float(loss.detach())}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        spent += time.perf_counter() - start


@torch.no_grad()
def _log_prob(flow: zuko.flows.Flow, x: Tensor) -> Tensor:
    return flow().log_prob(x.float())


def _mixtures(config: PeerConfig, data: Preprocessed) -> Iterator[Candidate]:
    """Yields mixtures of more and more Gaussians within the seconds, at least one."""
    rows = data.rows(config.seed).numpy()
    spent, best, stale = 0.0, math.inf, 0
    for number in [k for k in NUMBERS if k <= len(rows)]:
        start = time.perf_counter()
        mixture = GaussianMixture(number, reg_covar=1e-6, random_state=config.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(rows)
        spent += time.perf_counter() - start
        one = data.candidate(number, spent, partial(_mixture_values, mixture))
        yield one
        best, stale = min(best, one.nll), 0 if one.nll < best else stale + 1
        if stale == PATIENCE or spent >= config.seconds:
            return


def _mixture_values(mixture: GaussianMixture, x: Tensor) -> Tensor:
    return torch.from_numpy(mixture.score_samples(x.numpy()))
