"""Densities of other packages, fitted within a time and chosen by validation.

zuko's networks are trained by Adam. scikit-learn's mixtures of Gaussians get more components until
they get worse.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ebflow.errors import NonFinite
from ebflow.randomness import generator
from pipelines.paper.config import RivalConfig

# Sizes of zuko's flows, those in its README.
SIZES = {"transforms": 3, "hidden_features": (128, 128, 128)}

RATE, BATCH = 1e-3, 256
VALIDATIONS = 20  # Validations of a network in its training

NUMBERS = (1, 2, 3, 5, 8, 12, 20, 30, 50)
PATIENCE = 2  # Numbers of Gaussians without an improvement after which no larger one is tried


class Look(NamedTuple):
    """A validation during a fit.

    ``step`` is that of a network, or the number of Gaussians. ``seconds`` were spent on the fit.
    """

    step: int
    seconds: float
    nll: float


def created(create: Callable[[], torch.nn.Module], config: RivalConfig) -> torch.nn.Module:
    """Returns a network of zuko, which initializes weights by PyTorch's global state."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(generator(config.seed, "fit", config.rival).initial_seed())
        return create()


def train(
    network: torch.nn.Module,
    loss: Callable[[], Tensor],
    validation: Callable[[], float],
    config: RivalConfig,
    rate: float = RATE,
) -> list[Look]:
    """Trains a network in place, and gives it its best weights; returns all validations.

    Arguments:
        network: The network.
        loss: Returns the loss of a new batch.
        validation: Returns the NLL of the validation rows.
        config: The limits: seconds without validation, and steps.
        rate: The learning rate.

    Raises:
        NonFinite: If a loss is infinite or NaN.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    limit, spent, due = config.seconds or math.inf, 0.0, 0.0
    looks: list[Look] = []
    for step in range(config.steps + 1):
        share = max(spent / limit, step / config.steps)
        if share >= due:
            with torch.no_grad():
                looks.append(Look(step, spent, validation()))
            if looks[-1] == min(looks, key=lambda look: look.nll):
                best = copy.deepcopy(network.state_dict())
            due = (math.floor(share * VALIDATIONS) + 1) / VALIDATIONS
        if share >= 1:
            break
        start = time.perf_counter()
        value = loss()
        if not value.isfinite():
            raise NonFinite(f"{config.rival}: step {step}: found a loss of {value.item()}")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        spent += time.perf_counter() - start
    network.load_state_dict(best)
    return looks


def mixture(
    rows: np.ndarray,
    validation: Callable[[GaussianMixture], float],
    config: RivalConfig,
    floor: float = 1e-6,
) -> tuple[GaussianMixture, list[Look]]:
    """Returns the mixture of Gaussians with the least validation NLL, and all validations.

    Arguments:
        rows: The training rows, with shape (N, D).
        validation: Returns the NLL of the validation rows.
        config: The seconds. Fits that end later do not count, but for the first.
        floor: The constant that is added to variances.
    """
    limit, spent, looks, fitted = config.seconds or math.inf, 0.0, [], []
    for number in [k for k in NUMBERS if k <= len(rows)]:
        start = time.perf_counter()
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            model = GaussianMixture(number, reg_covar=floor, random_state=config.seed)
            fitted.append(model.fit(rows))
        spent += time.perf_counter() - start
        if looks and spent > limit:
            break
        looks.append(Look(number, spent, validation(model)))
        best = min(range(len(looks)), key=lambda k: looks[k].nll)
        if spent >= limit or len(looks) - 1 - best == PATIENCE:
            break
    return fitted[best], looks
