"""Conditional densities of a number by ebflow and by its rivals, each as its users fit it.

A predictor maps a table to log-densities (N,) and samples (K, N) of the test rows' targets. It
sees the test rows' contexts, and their targets only to evaluate its density.
"""

import copy
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import zuko
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal

from ebflow.errors import NonFinite
from ebflow.fitting import fit
from ebflow.randomness import generator
from pipelines.paper.config import PredictConfig

DRAWS = 199
"""Samples of a row."""

LEVELS = np.array([0.005, 0.01, 0.025, *np.arange(0.05, 0.96, 0.05), 0.975, 0.99, 0.995])
"""Levels of the quantiles of gradient boosting."""

NARROWEST = 0.01
"""Smallest distance of two quantiles per unit of probability, in standard deviations."""

RATE, BATCH, VALIDATIONS = 1e-3, 256, 20
"""Adam's learning rate, rows of a step, and validations of a network in its seconds."""

LONGEST = 60.0
"""Most seconds between the first and the last of so many validations."""

HIDDEN, COMPONENTS = (64, 64), 8
"""Widths of the mixture density network, and its Gaussians."""

NSF = {"transforms": 3, "hidden_features": (128, 128, 128)}
"""Sizes of zuko's flow in zuko's README."""

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
Predict = Callable[[Table, PredictConfig, Report], Prediction]


def _flow(table: Table, config: PredictConfig, report: Report) -> Prediction:
    """Predicts by ebflow's default conditional flow."""
    (y, c), held_out, (test, given) = (rows.tensors() for rows in table)
    flow = fit(
        y,
        c,
        validation=held_out,
        steps=config.steps,
        max_seconds=config.seconds,
        seed=config.seed,
        progress=False,
        callback=lambda event: report(event.share, "fits the flow"),
    )
    noise = generator(config.seed, "predict", "flow")
    samples = flow(given).sample_tensor(DRAWS, generator=noise)
    return flow.log_prob(test, context=given).numpy(), samples[..., 0].numpy()


def _boosting(table: Table, config: PredictConfig, report: Report) -> Prediction:
    """Predicts by quantiles, between which the density is constant.

    Beyond the outermost ones it falls exponentially, from the density of the interval beside.
    """
    train = np.concatenate([table.train.c, table.validation.c])
    y, quantiles = np.concatenate([table.train.y, table.validation.y]), []
    for number, level in enumerate(LEVELS):
        report(number / len(LEVELS), "fits quantiles")
        trees = HistGradientBoostingRegressor(
            loss="quantile", quantile=level, early_stopping=True, random_state=config.seed
        )
        quantiles.append(trees.fit(train, y).predict(table.test.c))
    ends = np.sort(np.stack(quantiles), axis=0)
    widths = np.maximum(np.diff(ends, axis=0), NARROWEST * np.diff(LEVELS)[:, None])
    ends = ends[0] + np.concatenate([np.zeros_like(ends[:1]), widths.cumsum(0)])
    u = torch.rand(DRAWS, len(table.test.y), generator=generator(config.seed, "predict", "trees"))
    return _from_quantiles(ends, table.test.y, u.double().numpy())


def _from_quantiles(ends: np.ndarray, y: np.ndarray, u: np.ndarray) -> Prediction:
    """Returns log-densities at ``y`` (N,) and the values at levels ``u`` (K, N).

    Arguments:
        ends: The quantiles at ``LEVELS``, strictly ascending, with shape (L, N).
    """
    log_density = np.log(np.diff(LEVELS))[:, None] - np.log(np.diff(ends, axis=0))
    low, high = LEVELS[0] / np.exp(log_density[0]), (1 - LEVELS[-1]) / np.exp(log_density[-1])
    place = (y >= ends).sum(0) - 1
    inside = np.take_along_axis(log_density, place.clip(0, len(LEVELS) - 2)[None], 0)[0]
    beyond = np.maximum((ends[0] - y) / low, 0) + np.maximum((y - ends[-1]) / high, 0)
    values = np.stack([np.interp(u[:, k], LEVELS, ends[:, k]) for k in range(len(y))], 1)
    below, above = u / LEVELS[0], (1 - u) / (1 - LEVELS[-1])
    values = values + np.where(below < 1, low * np.log(below.clip(1e-12)), 0.0)
    values = values - np.where(above < 1, high * np.log(above.clip(1e-12)), 0.0)
    return inside - beyond, values


def _ngboost(table: Table, config: PredictConfig, report: Report) -> Prediction:
    """Predicts by natural gradient boosting of a Gaussian, stopped by validation rows."""
    from ngboost import NGBRegressor

    model = NGBRegressor(n_estimators=TREES, verbose=False, random_state=config.seed)
    model.fit(
        table.train.c, table.train.y, X_val=table.validation.c, Y_val=table.validation.y,
        early_stopping_rounds=PATIENCE,
    )  # fmt: skip
    normal = model.pred_dist(table.test.c)
    return normal.logpdf(table.test.y), _normal_draws(normal.params, config.seed)


def _normal_draws(params: dict[str, np.ndarray], seed: int) -> np.ndarray:
    mean, scale = (torch.from_numpy(params[name]) for name in ("loc", "scale"))
    noise = torch.randn(DRAWS, len(mean), generator=generator(seed, "predict", "ngboost"))
    return (mean + scale * noise).numpy()


class MixtureDensity(nn.Module):
    """A network from contexts to a mixture of Gaussians of the target (Bishop, 1994)."""

    def __init__(self, contexts: int) -> None:
        super().__init__()
        sizes = (contexts, *HIDDEN)
        layers = [
            m for a, b in zip(sizes, HIDDEN, strict=False) for m in (nn.Linear(a, b), nn.ReLU())
        ]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], 3 * COMPONENTS))

    def forward(self, c: Tensor) -> Distribution:
        """Returns the distribution of targets with shape (N,)."""
        logits, means, scales = self.network(c).chunk(3, -1)
        gaussians = Normal(means, nn.functional.softplus(scales) + 1e-3)
        return MixtureSameFamily(Categorical(logits=logits), gaussians)


def _network(table: Table, config: PredictConfig, report: Report) -> Prediction:
    """Predicts by the network's best state by validation; its targets have shape (N,)."""
    test, given = table.test.tensors()
    with torch.random.fork_rng(devices=()):  # both draw from PyTorch's global state
        torch.manual_seed(generator(config.seed, "predict", config.rival).initial_seed())
        width = given.shape[1]
        flow = config.rival == "zuko NSF"
        network = zuko.flows.NSF(1, width, **NSF) if flow else MixtureDensity(width)
        _train(network, table, config, report)
        with torch.no_grad():
            density = network(given)
            log_probs = density.log_prob(test if flow else test[:, 0])
            draws = density.sample((DRAWS,)).view(DRAWS, -1)
    return log_probs.double().numpy(), draws.double().numpy()


def _train(network: nn.Module, table: Table, config: PredictConfig, report: Report) -> None:
    """Trains by Adam for the seconds, or until validation stops improving; loads the best."""
    y, c = table.train.tensors()
    held_out = table.validation.tensors()
    flow = not isinstance(network, MixtureDensity)

    def loss(y: Tensor, c: Tensor) -> Tensor:
        return -network(c).log_prob(y if flow else y[:, 0]).mean()

    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    seconds, start, due = config.seconds or math.inf, time.perf_counter(), 0.0
    best, state = math.inf, network.state_dict()
    for step in range(config.steps + 1):
        spent = time.perf_counter() - start
        over = spent >= seconds or step == config.steps
        if over or spent >= due:
            report(spent / seconds, "trains")
            with torch.no_grad():
                nll = float(loss(*held_out))
            if nll < best:
                best, state = nll, copy.deepcopy(network.state_dict())
            due += min(seconds, LONGEST) / VALIDATIONS
        if over:
            break
        rows = torch.randint(len(y), (min(BATCH, len(y)),))
        value = loss(y[rows], c[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    if not math.isfinite(best):
        raise NonFinite(f"{config.rival}: found no finite validation loss")
    network.load_state_dict(state)


PREDICTORS: dict[str, Predict] = {
    "ebflow": _flow,
    "boosted quantiles": _boosting,
    "NGBoost": _ngboost,
    "mixture network": _network,
    "zuko NSF": _network,
}
