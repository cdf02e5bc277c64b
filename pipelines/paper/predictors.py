"""Conditional densities of a number by ebflow and by its rivals, each as its users fit it.

A predictor maps a table to log-densities (N,) and samples (K, N) of the test rows' targets.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import zuko
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from ebflow.fitting import fit
from ebflow.randomness import generator
from pipelines.paper import fits
from pipelines.paper.config import RivalConfig

DRAWS = 199
"""Samples of a row."""

LEVELS = np.array([0.005, 0.01, 0.025, *np.arange(0.05, 0.96, 0.05), 0.975, 0.99, 0.995])
"""Levels of the quantiles of gradient boosting."""

NARROWEST = 0.01
"""Smallest distance of two quantiles per unit of probability, in standard deviations."""

NETWORK = partial(zuko.flows.GMM, components=8, hidden_features=(64, 64), epsilon=1e-3)
"""A mixture density network: eight Gaussians by a network of the context (Bishop, 1994)."""

TREES, PATIENCE = 500, 50
"""Most trees of NGBoost, its default, and trees without improvement until it stops."""


class Rows(NamedTuple):
    """Targets (N,) and contexts (N, C) of a split."""

    y: np.ndarray
    c: np.ndarray

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Returns targets (N, 1) and contexts in float32."""
        return torch.from_numpy(self.y).float()[:, None], torch.from_numpy(self.c).float()


class Table(NamedTuple):
    """The splits of a table."""

    train: Rows
    validation: Rows
    test: Rows


Report = Callable[[float, str], None]
Prediction = tuple[np.ndarray, np.ndarray]
Predict = Callable[[Table, RivalConfig, Report], Prediction]


def _flow(table: Table, config: RivalConfig, report: Report) -> Prediction:
    """Predicts by ebflow's default conditional flow."""
    (y, c), held_out, (test, given) = (rows.tensors() for rows in table)
    flow = fit(
        y,
        c,
        validation=held_out,
        **config.model_dump(include={"steps", "seed"}),
        max_seconds=config.seconds,
        progress=False,
        callback=lambda event: report(event.share, "fits the flow"),
    )
    samples = flow(given).sample_tensor(DRAWS, generator=generator(config.seed, "predict"))
    return flow.log_prob(test, context=given).numpy(), samples[..., 0].numpy()


def _boosting(table: Table, config: RivalConfig, report: Report) -> Prediction:
    """Predicts by quantiles, between which the density is constant."""
    y, c = (np.concatenate(parts) for parts in zip(*table[:2], strict=True))
    quantiles = []
    for number, level in enumerate(LEVELS):
        report(number / len(LEVELS), "fits quantiles")
        options = {"quantile": level, "early_stopping": True, "random_state": config.seed}
        trees = HistGradientBoostingRegressor(loss="quantile", **options)
        quantiles.append(trees.fit(c, y).predict(table.test.c))
    first, *_ = quantiles = np.sort(np.stack(quantiles), axis=0)
    widths = np.maximum(np.diff(quantiles, axis=0), NARROWEST * np.diff(LEVELS)[:, None])
    ends = np.concatenate([first[None], first + widths.cumsum(0)])
    u = torch.rand(DRAWS, len(first), generator=generator(config.seed, "predict"))
    return from_quantiles(ends, table.test.y, u.double().numpy())


def from_quantiles(ends: np.ndarray, y: np.ndarray, u: np.ndarray) -> Prediction:
    """Returns log-densities at ``y`` (N,) and the values at levels ``u`` (K, N).

    The density is constant between quantiles. Beyond the outermost ones it falls exponentially,
    from the density of the interval beside.

    Arguments:
        ends: The quantiles at ``LEVELS``, strictly ascending, with shape (L, N).
    """
    density = np.diff(LEVELS)[:, None] / np.diff(ends, axis=0)
    low, high = LEVELS[0] / density[0], (1 - LEVELS[-1]) / density[-1]
    place = ((y >= ends).sum(0) - 1).clip(0, len(density) - 1)
    beyond = np.maximum(ends[0] - y, 0) / low + np.maximum(y - ends[-1], 0) / high
    values = np.stack([np.interp(*k, LEVELS, q) for *k, q in zip(u.T, ends.T, strict=True)], 1)
    values += low * np.log(np.clip(u / LEVELS[0], 1e-12, 1))
    values -= high * np.log(np.clip((1 - u) / (1 - LEVELS[-1]), 1e-12, 1))
    return np.log(density[place, np.arange(len(y))]) - beyond, values


def _ngboost(table: Table, config: RivalConfig, report: Report) -> Prediction:
    """Predicts by natural gradient boosting of a Gaussian, stopped by validation rows."""
    from ngboost import NGBRegressor

    model = NGBRegressor(n_estimators=TREES, verbose=False, random_state=config.seed)
    held_out = {"X_val": table.validation.c, "Y_val": table.validation.y}
    model.fit(table.train.c, table.train.y, **held_out, early_stopping_rounds=PATIENCE)
    normal = model.pred_dist(table.test.c)
    size = (DRAWS, len(table.test.y))
    return normal.logpdf(table.test.y), normal.dist.rvs(size, random_state=config.seed)


def _network(
    table: Table,
    config: RivalConfig,
    report: Report,
    *,
    create: Callable[..., zuko.lazy.LazyDistribution],
) -> Prediction:
    """Predicts by a network of zuko."""
    train, held_out, (test, given) = (rows.tensors() for rows in table)
    network = fits.created(partial(create, 1, given.shape[1]), config)
    noise = generator(config.seed, "predict", config.rival)

    def nll(y: Tensor, c: Tensor) -> Tensor:
        return -network(c).log_prob(y).mean()

    def loss() -> Tensor:
        size = min(fits.BATCH, len(train[0]))
        rows = torch.randint(len(train[0]), (size,), generator=noise)
        return nll(*(part[rows] for part in train))

    fits.train(network, loss, lambda: float(nll(*held_out)), config)
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(noise.initial_seed())  # zuko samples from PyTorch's global state
        density = network(given)
        samples = density.sample((DRAWS,))[..., 0]
        return density.log_prob(test).double().numpy(), samples.double().numpy()


PREDICTORS: dict[str, Predict] = {
    "ebflow": _flow,
    "boosted quantiles": _boosting,
    "NGBoost": _ngboost,
    "mixture network": partial(_network, create=NETWORK),
    "zuko NSF": partial(_network, create=partial(zuko.flows.NSF, **fits.SIZES)),
}
