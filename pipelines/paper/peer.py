"""From prepared data to a density of another package, fitted as its users do, and its likelihood.

A peer sees data behind the preprocessing of a flow: the same dequantization, by the same noise,
and the same logit. Its likelihood is in units of the raw data. ``maf`` and ``nsf`` are zuko's
masked autoregressive flows, affine and rational-quadratic. ``gmm`` is scikit-learn's mixture of
Gaussians with full covariances. ``refined`` is no peer, but what ``ebflow.fit`` and
``ebflow.refine`` make of the raw rows.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import zuko
from torch import Tensor

from ebflow import fitting
from ebflow.bases import Base
from ebflow.evaluation import log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import Generator, RowGenerator
from ebflow.refinement import Refined, refine
from pipelines.data.dataset import Dataset
from pipelines.density.evaluate import LOG_PROBS, likelihood
from pipelines.paper import fits
from pipelines.paper.config import RivalConfig
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import PREPROCESSING

FLOWS = {"maf": zuko.flows.MAF, "nsf": zuko.flows.NSF}

SHARE = 0.7  # Share of the seconds in which a flow is fitted that is then refined
ROWS = 10_000  # Training rows of a refinement at most


def peer(config: RivalConfig, data: Path, preprocessed: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``, the rows' log-densities."""
    dataset = run.open(config, Dataset(data))
    splits = [dataset.split(name) for name in ("test", "validation")]
    if config.rival == "refined":
        refined, looks = _refined(config, dataset)
        test, validation = (refined.log_prob(split.tensor()) for split in splits)
    else:
        density, looks = fit(config, dataset, Preprocessing.load(preprocessed / PREPROCESSING))
        test, validation = (log_probs(density, split) for split in splits)
    np.savez(run.output / LOG_PROBS, test=test.numpy(), validation=validation.numpy())
    run.write_metrics({
        "time/train_s": looks[-1].seconds,
        "train/steps": looks[-1].step,
        **likelihood("test/", test, dataset.manifest.width),
        **likelihood("best/val_", validation, dataset.manifest.width),
    })  # fmt: skip


def fit(
    config: RivalConfig, dataset: Dataset, preprocessing: Preprocessing
) -> tuple[Flow, list[fits.Look]]:
    """Returns the density of raw rows with the best validation, and all validations."""
    width, train = dataset.manifest.width, dataset.split("train")
    plain = Flow((width,), []).double().preprocessed(preprocessing)

    def density(values: Callable[[Tensor], Tensor]) -> Flow:
        return Flow((width,), [], base=_Values(values)).double().preprocessed(preprocessing)

    def validation(values: Callable[[Tensor], Tensor]) -> float:
        return -float(log_probs(density(values), dataset.split("validation")).mean())

    @torch.no_grad()
    def preprocess(x: Tensor, step: int | str) -> Tensor:
        return plain.preprocess(x, generator=RowGenerator(config.seed, "peer", step))

    if config.rival == "gmm":
        rows = preprocess(train.tensor(), "train").numpy()
        chosen, looks = fits.mixture(rows, lambda one: validation(_of_mixture(one)), config)
        return density(_of_mixture(chosen)), looks
    network = fits.created(partial(FLOWS[config.rival], width, **fits.SIZES), config)
    batches = enumerate(train.shuffled(min(fits.BATCH, len(train)), seed=config.seed))

    def loss() -> Tensor:
        step, batch = next(batches)
        return -network().log_prob(preprocess(batch.x, step).float()).mean()

    values = torch.no_grad()(lambda x: network().log_prob(x.float()))
    looks = fits.train(network, loss, lambda: validation(values), config)
    return density(values), looks


def _refined(config: RivalConfig, dataset: Dataset) -> tuple[Refined, list[fits.Look]]:
    """Returns a flow that boosted trees refine, and its validation without them."""
    started, seconds = time.perf_counter(), config.seconds and SHARE * config.seconds
    train, validation = (dataset.split(name).tensor() for name in ("train", "validation"))
    flow = fitting.fit(train, validation=(validation,), max_seconds=seconds, steps=config.steps,
                       seed=config.seed, progress=False)  # fmt: skip
    some = next(dataset.split("train").shuffled(min(ROWS, len(train)), seed=config.seed)).x
    refined = refine(flow, some, seed=config.seed)
    spent = time.perf_counter() - started
    return refined, [fits.Look(flow.report.steps, spent, flow.report.nll)]


class _Values(Base):
    """A density of latents by its values alone."""

    def __init__(self, values: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.values = values

    def energy(self, x: Tensor) -> Tensor:
        return -self.values(x).double()

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        raise NotImplementedError("a peer is not sampled")


def _of_mixture(mixture: fits.GaussianMixture) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.from_numpy(mixture.score_samples(x.numpy()))
