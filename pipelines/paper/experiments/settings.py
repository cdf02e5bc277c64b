"""Settings that experiments share: the paper's on images, and this project's recipes.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its code.
"""

from collections.abc import Callable
from typing import Any

from pipelines.config import (
    AnchorConfig,
    DataConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
)
from pipelines.config.recipes import mnist9k_dense
from pipelines.paper.config import PaperConfig

PLAIN = AnchorConfig(weight=0.0)
"""No anchor."""

RAW = PreprocessConfig(normalize="none")
"""No normalization."""

OBJECTIVES = {"ML": "ml", "SML": "sml", "SSM": "ssm_vr", "DSM": "dsm", "FD-SSM": "fd_ssm"}
"""The paper's objectives by its names; its SSM is the variance-reduced form."""

LEAKY = {"activation": "smooth_leaky_relu", "calibrated": True}
NETS = {
    "FC": ModelConfig(depth=3, **LEAKY),
    "CNN": ModelConfig(
        architecture="convolutional", depth=2, kernel_size=7, hidden=0, sign=1, **LEAKY
    ),
}
SMOKE_STEPS = 60

EVERY = 10
"""The recipe matches scores in one of ten steps: it costs little more time than likelihood."""

LARGE_RATE = 5e-4
"""The recipe's learning rate for dense layers at D = 3072, which do not stand that for 784."""

WIDTH = 784
"""D of MNIST: the paper's code divides losses of score matching by D, so that what is added to
their gradients, or bounds them, is multiplied by it here."""

WEIGHT_DECAY = {"ml": 1e-5, "sml": 2e-5, "dsm": 1e-5 * WIDTH}
"""The weight decay 1e-5 of MNIST's CNN in nats; the code's gradient of SML is half of ours."""

LOW_ENERGY = {
    **dict.fromkeys(("ssm_vr", "dsm"), 0.001 * 32 * 32),
    "fd_ssm": 0.001 * 3072 / 0.1**2,
}
"""The weight 0.001 of the energy on CIFAR-10 in nats: the code's losses are divided by D, and the
term by the number of colours; of finite differences by ε² instead."""

EPOCH = {"grey": 500, "colour": 400}
"""Steps of the paper's epochs, by kind of images: 50,000 or 40,000 of them in batches of 100."""

USUAL = "usual"
DECAYS: dict[tuple[str, str], dict[str, tuple[float, int]]] = {
    ("grey", "FC"): {USUAL: (0.95, 50)},
    ("grey", "CNN"): {USUAL: (0.95, 50), "ml": (0.925, 50), "sml": (0.925, 50)},
    ("colour", "FC"): {USUAL: (0.85, 30), **dict.fromkeys(("ml", "sml", "fd_ssm"), (0.7, 20))},
    ("colour", "CNN"): {USUAL: (0.8, 20), "ssm_vr": (0.9, 20), "fd_ssm": (0.85, 50)},
}
"""Published γ and M, by kind of images and net, and by objective where they are not the usual: the
learning rate is multiplied by γ at the ends of the epochs 1 … M − 1."""


def bounds(config: PaperConfig, *, cpu: float, full: int) -> dict[str, Any]:
    """Returns the bounds of a training at the scale: 60 steps, seconds, or the paper's steps.

    Arguments:
        config: The experiment's configuration; its ``seconds`` go over those of scale ``cpu``.
        cpu: Training seconds at scale ``cpu``.
        full: Steps at scale ``full``.
    """
    seconds = config.seconds or cpu
    return {
        "smoke": {"steps": SMOKE_STEPS, "max_seconds": None, "validate_every": SMOKE_STEPS},
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


def base(
    config: PaperConfig,
    seed: int,
    source: str,
    *,
    cpu: float,
    full: int,
    recipe: Callable[[], DensityConfig] = mnist9k_dense,
    **train: Any,  # noqa: ANN401
) -> DensityConfig:
    """Returns a recipe on the data that the options ask for, bounded as the scale wants it.

    Arguments:
        config: The experiment's configuration.
        seed: The seed.
        source: The experiment's data.
        cpu, full: As of :func:`bounds`, which go over ``train``.
        recipe: The recipe.
        train: What is changed of its optimization.
    """
    train = {"threads": config.threads, **train, **bounds(config, cpu=cpu, full=full)}
    return recipe().changed(seed=seed, data=data(config, source), train=train)


def schedules(config: PaperConfig, kind: str = "grey") -> dict[str, int | None]:
    """Returns the published learning rate's epochs by the names that tables give its schedules.

    At scale ``full`` it is the published one. Shorter trainings end long before its last fall, so
    that there is also one that is *squeezed* into them.
    """
    published = {"paper": EPOCH[kind]}
    return published if config.scale == "full" else {**published, "squeezed": None}


def recipe(base: DensityConfig, net: str, objective: str, kind: str = "grey") -> DensityConfig:
    """Returns the recipe for images by an objective, anchored if it matches scores.

    Arguments:
        base: Data, seed and bounds.
        net: ``FC`` or ``CNN``.
        objective: The objective.
        kind: ``grey`` for images of some hundred pixels, ``colour`` for some thousand.
    """
    return base.changed(
        model=NETS[net],
        objective=ObjectiveConfig.of(objective, sigma=0.1, every=EVERY),
        train={"lr": LARGE_RATE} if (net, kind) == ("FC", "colour") else {},
    )


def published(
    base: DensityConfig, net: str, objective: str, kind: str = "grey", epoch: int | None = None
) -> DensityConfig:
    """Returns the published settings.

    Arguments:
        base: Data, seed and bounds.
        net: ``FC`` or ``CNN``.
        objective: The objective.
        kind: ``grey``, for MNIST's settings, or ``colour``, for CIFAR-10's.
        epoch: The steps of an epoch, at the ends of which the learning rate falls; None: all
            falls are squeezed into the training.
    """
    cnn, colour = net == "CNN", kind == "colour"
    noise = 0.1 if cnn or colour else 1.0
    gamma, milestones = DECAYS[kind, net].get(objective, DECAYS[kind, net][USUAL])
    start = {"spectral_norm": True} if colour and objective in ("ml", "dsm", "ssm_vr") else {}
    model = start if cnn else {"depth": 2, "bias": 1.0, "residual": colour}
    return base.changed(
        preprocess=RAW.changed(scale=0.75 if cnn else 0.5),
        model=NETS[net].changed(sign=-1, calibrated=False, **model),
        objective=ObjectiveConfig.of(objective, sigma=noise, epsilon=noise),
        anchor=PLAIN,
        stabilise={"low_energy": LOW_ENERGY.get(objective, 0.0) if colour else 0.0},
        train={
            "optimizer": "rmsprop", "lr": 1e-4, "warmup": 0.0, "schedule": "multistep",
            "gamma": gamma, "milestones": milestones - 1 if epoch else milestones, "epoch": epoch,
            "augment": "cifar10" if colour else "none",
            "weight_decay": WEIGHT_DECAY.get(objective, 0.0) if cnn and not colour else 0.0,
            "clip": 5.0 * WIDTH if objective == "fd_ssm" and not colour else None,
        },
    )  # fmt: skip
