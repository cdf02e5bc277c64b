"""Settings that the experiments on images share: the paper's, and this project's recipe.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its code.
"""

__all__ = ["NETS", "OBJECTIVES", "base", "bounds", "data", "published", "recipe"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.config import (
    AnchorConfig,
    DataConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PaperConfig,
    PreprocessConfig,
    StabiliseConfig,
)
from pipelines.recipes import mnist9k

OBJECTIVES = {"ML": "ml", "SML": "sml", "SSM": "ssm_vr", "DSM": "dsm", "FD-SSM": "fd_ssm"}
"""The paper's objectives by its names; its SSM is the variance-reduced form."""

NETS = {"FC": ModelConfig(), "CNN": ModelConfig(architecture="convolutional")}
SMOKE_STEPS = 60

EVERY = 10
"""The recipe matches scores in one of ten steps: it costs little more time than likelihood."""

WIDTH = 784
"""The paper's code divides its losses by D, so that a bound of a gradient is multiplied by it."""

LOW_ENERGY = 0.001 * 32 * 32
"""The weight 0.001 of the energy on CIFAR-10 in nats: the code's losses are divided by D, and the
term by the number of colours."""

LOW_ENERGY_DIFFERENCES = 0.001 * 3072 / 0.1**2
"""The same for finite differences, whose code divides the term by ε² instead."""


@dataclass(frozen=True)
class Decay:
    """How often, once an epoch, the learning rate is multiplied by which factor.

    Attributes:
        milestones: How often.
        usual: The factor.
        others: Factors of some objectives in its place.
    """

    milestones: int
    usual: float
    others: Mapping[str, float] = field(default_factory=dict)


DECAYS = {
    ("grey", "FC"): Decay(50, 0.95),
    ("grey", "CNN"): Decay(50, 0.95, {"ml": 0.925, "sml": 0.925}),
    ("colour", "FC"): Decay(30, 0.85, {"ml": 0.7, "sml": 0.7, "fd_ssm": 0.7}),
    ("colour", "CNN"): Decay(20, 0.8, {"ssm_vr": 0.9, "fd_ssm": 0.85}),
}
"""Published, by kind of images and net."""


def bounds(config: PaperConfig, *, cpu: float, full: int) -> dict[str, Any]:
    """Returns the bounds of a training at the scale: 60 steps, seconds, or the paper's steps.

    Arguments:
        config: The experiment's configuration; its ``seconds`` go over those of scale ``cpu``.
        cpu: Training seconds at scale ``cpu``.
        full: Steps at scale ``full``.
    """
    seconds = config.seconds or cpu
    return {
        "smoke": {"steps": SMOKE_STEPS, "max_seconds": 2.0, "validate_every": SMOKE_STEPS},
        "cpu": {"steps": 1_000_000, "max_seconds": seconds},
        "full": {"steps": full, "max_seconds": None},
    }[config.scale]


def data(config: PaperConfig, source: str) -> DataConfig:
    """Returns the images that the options ask for, or else the experiment's."""
    return DataConfig(
        source=config.source or source,
        validation=config.validation,
        test=config.test,
        rows=config.rows,
    )


def base(config: PaperConfig, seed: int, source: str, **limits: Any) -> DensityConfig:  # noqa: ANN401
    """Returns this project's recipe for images, bounded by ``limits`` as in :func:`bounds`."""
    found = mnist9k()
    train = {**bounds(config, **limits), "threads": config.threads}
    return found.model_copy(
        update={
            "seed": seed,
            "data": data(config, source),
            "train": found.train.model_copy(update=train),
        }
    )


def recipe(base: DensityConfig, net: str, objective: str) -> DensityConfig:
    """Returns the recipe for images by an objective, anchored if it matches scores."""
    chosen = ObjectiveConfig.of(objective, sigma=0.1, every=EVERY)
    return base.model_copy(update={"model": NETS[net], "objective": chosen})


def published(base: DensityConfig, net: str, objective: str, kind: str = "grey") -> DensityConfig:
    """Returns the published settings; the decay of the first epochs is stretched over the run.

    Arguments:
        base: Data, seed and bounds.
        net: ``FC`` or ``CNN``.
        objective: The objective.
        kind: ``grey``, for MNIST's settings, or ``colour``, for CIFAR-10's.
    """
    cnn, colour = net == "CNN", kind == "colour"
    noise = 0.1 if cnn or colour else 1.0
    train = base.train.model_copy(update=_optimisation(net, objective, kind))
    return base.model_copy(
        update={
            "preprocess": PreprocessConfig(normalise="none", scale=0.75 if cnn else 0.5),
            "model": _model(net, objective, colour=colour),
            "objective": ObjectiveConfig.of(objective, sigma=noise, epsilon=noise),
            "anchor": AnchorConfig(weight=0.0),
            "stabilise": StabiliseConfig(low_energy=_low_energy(objective) if colour else 0.0),
            "train": train,
        }
    )


def _low_energy(objective: str) -> float:
    special = {"ml": 0.0, "sml": 0.0, "fd_ssm": LOW_ENERGY_DIFFERENCES}
    return special.get(objective, LOW_ENERGY)


def _model(net: str, objective: str, *, colour: bool) -> ModelConfig:
    start: dict[str, Any] = {"sign": -1, "calibrated": False}
    if net == "FC":
        start |= {"depth": 2, "bias": 1.0, "residual": colour}
    elif colour and objective in ("ml", "dsm", "ssm_vr"):
        start |= {"spectral_norm": True}
    return NETS[net].model_copy(update=start)


def _optimisation(net: str, objective: str, kind: str) -> dict[str, Any]:
    decay, grey = DECAYS[kind, net], kind == "grey"
    regularised = grey and net == "CNN" and objective in ("ml", "sml", "dsm")
    return {
        "optimizer": "rmsprop",
        "lr": 1e-4,
        "warmup": 0.0,
        "schedule": "multistep",
        "milestones": decay.milestones,
        "gamma": decay.others.get(objective, decay.usual),
        "weight_decay": 1e-5 if regularised else 0.0,
        "clip": 5.0 * WIDTH if grey and objective == "fd_ssm" else None,
    }
