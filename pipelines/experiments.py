"""The paper's experiments as cells: a configuration each, beside the number that was published.

Source of settings and numbers: Training Energy-Based Normalizing Flow with Score-Matching
Objectives (Chao, Sun, Hsu, Kira, Lee, 2023), arXiv:2305.15267, and its code.
"""

__all__ = ["SCALES", "Cell", "cells"]

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.config import (
    AnchorConfig,
    DataConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PaperConfig,
    PreprocessConfig,
    TrainConfig,
)
from pipelines.recipes import mnist9k

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"max_seconds": 2.0, "steps": 100},
    "cpu": {"max_seconds": 50.0, "steps": 1_000_000},
    "full": {"max_seconds": None, "steps": 500_000},
}
"""Bounds of a cell's training; ``full`` is 1,000 epochs of MNIST."""

MNIST = {
    "FC": {"ml": 1092.4, "sml": 1092.3, "ssm_vr": 1092.8, "dsm": 1099.2, "fd_ssm": 1104.1},
    "CNN": {"ml": 1101.3, "sml": 1098.3, "ssm_vr": 1107.5, "dsm": 1109.5, "fd_ssm": 1122.1},
}
"""Published test NLL on MNIST, nats an example; its SSM is the variance-reduced form."""

OURS = ("lazy_ml", "dsm", "ssm_vr")
NET = {"FC": ModelConfig(), "CNN": ModelConfig(architecture="convolutional")}


@dataclass(frozen=True)
class Cell:
    """One training of an experiment.

    Attributes:
        net: ``FC`` or ``CNN``.
        settings: ``paper``, the published ones, or ``recipe``, this project's.
        published: The published test NLL in nats; None for what was not published.
        config: Its configuration.
    """

    net: str
    settings: str
    published: float | None
    config: DensityConfig


def cells(config: PaperConfig) -> list[Cell]:
    """Returns the cells of an experiment at its scale, seed by seed."""
    return [cell for seed in range(config.seeds) for cell in _table(config, seed)]


def _table(config: PaperConfig, seed: int) -> Iterator[Cell]:
    base = _base(config, seed)
    for net, numbers in MNIST.items():
        for objective, published in numbers.items():
            yield Cell(net, "paper", published, _published(base, net, objective))
        for objective in OURS:
            yield Cell(net, "recipe", None, _recipe(base, net, objective))


def _base(config: PaperConfig, seed: int) -> DensityConfig:
    recipe = mnist9k()
    bounds = SCALES[config.scale]
    train = recipe.train.model_copy(update={**bounds, "threads": config.threads})
    data = DataConfig(
        source=config.source, validation=config.validation, test=config.test, rows=config.rows
    )
    return recipe.model_copy(update={"seed": seed, "data": data, "train": train})


def _recipe(base: DensityConfig, net: str, objective: str) -> DensityConfig:
    """The recipe for images of a few hundred pixels, by an objective; anchored if it matches."""
    chosen = {"model": NET[net], "objective": ObjectiveConfig(name=objective, sigma=0.1)}
    return base.model_copy(update=chosen)


def _published(base: DensityConfig, net: str, objective: str) -> DensityConfig:
    """The published settings; the decay of its first 50 epochs is stretched over the run."""
    cnn, differences = net == "CNN", objective == "fd_ssm"
    likelihood = objective in ("ml", "sml")
    noise = 0.1 if cnn else 1.0
    start: dict[str, Any] = {"sign": -1, "calibrated": False}
    model = NET[net].model_copy(update=start if cnn else {**start, "depth": 2, "bias": 1.0})
    train = TrainConfig(
        **{
            **base.train.model_dump(),
            "optimizer": "rmsprop",
            "lr": 1e-4,
            "warmup": 0.0,
            "schedule": "multistep",
            "milestones": 50,
            "gamma": 0.925 if cnn and likelihood else 0.95,
            "weight_decay": 1e-5 if cnn and (likelihood or objective == "dsm") else 0.0,
            "clip": 5.0 if differences else None,
        }
    )
    return base.model_copy(
        update={
            "preprocess": PreprocessConfig(normalise="none", scale=0.75 if cnn else 0.5),
            "model": model,
            "objective": ObjectiveConfig(name=objective, sigma=noise, epsilon=noise),
            "anchor": AnchorConfig(weight=0.0),
            "train": train,
        }
    )
