r"""From a trained flow to its exact likelihood, beside that of a Gaussian and of a mixture.

A flow given classes alone is a classifier by Bayes' rule, with the classes' shares :math:`\pi`
among the training rows:

.. math:: p(k \mid x) = \frac{\pi_k \, p(x \mid k)}{\sum_j \pi_j \, p(x \mid j)}

Its *calibration error* is the mean over test rows of the difference between the accuracy and the
mean probability of the likeliest class, of all rows in the row's bin of that probability.

Source: Obtaining Well Calibrated Probabilities Using Bayesian Binning (Naeini, Cooper, Hauskrecht,
2015), AAAI, for the expected calibration error.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ebflow.evaluation import Likelihood, log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing, density
from ebflow.tables.batches import Batch, Batched
from pipelines.config import EvaluateConfig
from pipelines.data.dataset import Dataset
from pipelines.density.likelihoods import BASELINES, SPLITS, prefix
from pipelines.inference.reference import Reference
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import GAUSSIAN, MIXTURE, NUMBERS
from pipelines.training.rivals import load

LOG_PROBS = "log_probs.npz"
"""File of the flow's log-densities of every row, by split; of the training split a sample."""

BINS = 10
"""Bins of the calibration error."""


def evaluate(
    config: EvaluateConfig, data: Path, preprocessed: Path, trained: Path, *, run: StageRun
) -> None:
    """Writes ``evaluation.json``, the likelihoods of the flow and of the baselines.

    Further files are ``log_probs.npz``, and ``reference.safetensors`` with the log-densities that
    new rows are compared with.

    A full-covariance Gaussian is fitted by maximum likelihood to the same training split behind
    the same dequantization and logit. If its covariance is singular, it gets the preprocessing's
    shrinkage, or a least one: ``baseline/gaussian_shrinkage``. A mixture of Gaussians stands
    behind the same. If there are contexts, the Gaussian is a linear regression on them, and the
    mixture, fitted to both, is conditioned on them. All are evaluated with the same noise.
    """
    torch.set_num_threads(1)
    run.log_params({"evaluate": config.model_dump()})
    dataset, options = Dataset(data), config.model_dump()
    run.log_input(dataset.manifest, "testing")
    densities = {"flow": (flow := load(trained / "checkpoint"))}
    for name, file in (("gaussian", GAUSSIAN), ("mixture", MIXTURE)):
        densities[name] = density(Preprocessing.load(preprocessed / file))
    metrics, of_flow = json.loads((preprocessed / NUMBERS).read_text()), {}
    for name in (split for split in SPLITS if split in dataset.manifest.counts):
        split = dataset.split(name)
        found = {what: log_probs(one, split, **options) for what, one in densities.items()}
        for what, values in found.items():
            metrics |= likelihood(prefix(what, name), values, split.width)
        metrics |= _gains(found, name, split.width)
        of_flow[name] = found["flow"].numpy()
    metrics |= _classified(densities, dataset, options)
    splits = map(dataset.split, ("train", "test"))
    reference = Reference.of(flow, *splits, batch_size=config.batch_size)
    reference.save(run.output, trained / "checkpoint")
    np.savez(run.output / LOG_PROBS, **of_flow, train=reference.train.numpy())
    run.write_metrics(metrics)


def _gains(found: Mapping[str, Tensor], split: str, width: int) -> dict[str, float]:
    """Returns the metrics of the flow's gain over each baseline, from log-densities by density."""
    metrics, at = {}, prefix("flow", split)
    for what, gain in BASELINES.items():
        paired = Likelihood.of(found["flow"] - found[what], width)
        metrics |= {f"{at}{gain}": -paired.nll, f"{at}{gain}_se": paired.nll_se}
    return metrics


def likelihood(prefix: str, found: Tensor, width: int) -> dict[str, float]:
    """Returns the metrics of log-densities with shape (N,) of rows of a width."""
    score = Likelihood.of(found, width)
    return {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}


def _classified(
    densities: Mapping[str, Flow], dataset: Dataset, options: Mapping[str, Any]
) -> dict[str, float]:
    """Returns the metrics of each density's classifier on test rows.

    There are none unless classes are the only context.
    """
    context = dataset.manifest.context
    if context is None or context.label is None or len(context.columns) > 1:
        return {}
    test, shares, metrics = dataset.split("test"), torch.tensor(context.mean), {}
    labels = test.labels()
    for name, one in densities.items():
        found = measures(log_posteriors(one, test, shares, **options), labels)
        metrics |= {f"{prefix(name)}{key}": value for key, value in found.items()}
    return metrics


class _InContext(NamedTuple):
    """A split, all of whose rows get the same context, with shape (C,)."""

    split: Batched
    context: Tensor

    def batches(self, size: int) -> Iterator[Batch]:
        for x, _ in self.split.batches(size):
            yield Batch(x, self.context.expand(len(x), -1))


def log_posteriors(flow: Flow, split: Batched, shares: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
    """Returns log p(k | x) of every row of a split, with shape (N, K); K evaluations of it.

    The flow's context is one of K classes, one-hot, and ``shares`` are π, with shape (K,). The
    options are those of ``log_probs``; the noise of a row is the same for all classes.
    """
    one_hot = torch.eye(len(shares), dtype=torch.float64)
    columns = [log_probs(flow, _InContext(split, context), **options) for context in one_hot]
    return (torch.stack(columns, 1) + shares.double().log()).log_softmax(1)


def measures(log_posteriors: Tensor, labels: Tensor) -> dict[str, float]:
    """Returns measures of log p(k | x) with shape (N, K), of rows of classes with shape (N,).

    ``accuracy`` (share), ``log_loss`` (nats), both with their standard errors ``…_se``, NaN of a
    single row, and ``calibration_error``.
    """
    rows = {
        "accuracy": (log_posteriors.argmax(1) == labels).double(),
        "log_loss": -log_posteriors.gather(1, labels[:, None])[:, 0],
    }
    metrics = {}
    for name, values in rows.items():
        spread = float(values.std()) if len(values) > 1 else math.nan
        metrics |= {name: float(values.mean()), f"{name}_se": spread / math.sqrt(len(values))}
    top = log_posteriors.exp().double().amax(1)
    bins = (top * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, top - rows["accuracy"])
    return {**metrics, "calibration_error": float(gaps.abs().sum() / len(labels))}
