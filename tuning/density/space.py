"""The space of trainings of a flow."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ebflow.architectures import ACTIVATIONS
from pipelines.config import LIKELIHOOD, ModelConfig, Training
from pipelines.training.architectures import ARCHITECTURES
from pipelines.training.nets import options
from tuning.density.config import DensitySearch, with_objective
from tuning.suggest import FIRST, Parameter, Space, choice, log, optional, real, whole

COLUMNS = ("dense", "coupling", "autoregressive")
IMAGES = ("dense", "convolutional", "glow")

LINEAR = ("dense", "convolutional")
"""The architectures of linear layers with activations between, which start as an identity."""

LEARNING = ("activation", "cells")

Condition = Callable[[Training], bool]


def known(model: ModelConfig) -> dict[str, Any]:
    """Returns all options of a net, with the architecture's own defaults."""
    defaults = inspect.signature(ARCHITECTURES[model.architecture]).parameters
    return {**{name: option.default for name, option in defaults.items()}, **options(model)}


def _own(option: str) -> Callable[[Training], Any]:
    return lambda began: known(began.model)[option]


def _is(*architectures: str) -> Condition:
    return lambda config: config.model.architecture in architectures


def _learns(activation: str) -> Condition:
    return lambda config: known(config.model).get("activation") == activation


def _uses(option: str) -> Condition:
    return lambda config: option in config.objective.options


def _but(*objectives: str) -> Condition:
    return lambda config: config.objective.name not in objectives


def _suited(began: Training) -> tuple[str, ...]:
    return COLUMNS if began.preprocess.logit is None else IMAGES


def _other_net(config: Training, name: str) -> Training:
    """Returns another architecture with those of the net's options that mean the same there."""
    model = config.model
    if name == model.architecture:
        return config
    kept = LEARNING if name in LINEAR and model.activation in ACTIVATIONS else ()
    same = {option: getattr(model, option) for option in kept}
    return config.changed(model=ModelConfig(architecture=name, base=model.base, **same))


def _with_bins(config: Training, bins: int | None) -> Training:
    stale = {} if bins == config.model.bins else {"bound": None, "shift_activation": None}
    return config.changed(model={"bins": bins, **stale})


NETS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "dense": {"depth": (whole, (1, 6), 3)},
    "convolutional": {"depth": (whole, (1, 3), 2), "kernel_size": (choice, (3, 5, 7), 3)},
    "glow": {"depth": (whole, (2, 8), 4), "hidden": (whole, (32, 128), 64)},
    "coupling": {
        "depth": (whole, (2, 12), 6),
        "hidden": (whole, (16, 128), 64),
        "bins": (choice, (None, 8), None),
    },
    "autoregressive": {
        "depth": (choice, (2, 3, 4, 6), None),
        "hidden": (choice, (64, 128, 256, 512), None),
        "bins": (choice, (8, 4, 16), 8),
        "mixing": (choice, ("reversal", "rotation"), "reversal"),
    },
}
"""By architecture and option its law, and where it starts if the base has another architecture."""

NETWORKS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(LINEAR, tuple(ACTIVATIONS)),
    "coupling": ("swish", "elu"),
    "glow": ("leaky_relu", "swish"),
}
"""The activations of architectures that have a choice."""


def _of_nets() -> Iterator[Parameter]:
    """Yields the options of architectures, each a parameter of its own."""
    for name, laws in NETS.items():
        for option, (kind, ends, begin) in laws.items():
            yield kind(
                f"model.{option}",
                ends,
                _is(name),
                of=f"of {name}",
                start=lambda c, n=name, o=option, b=begin: known(c.model)[o] if _is(n)(c) else b,
                sets=_with_bins if option == "bins" else None,
            )


def _anchored(config: Training) -> bool:
    return config.objective.name not in LIKELIHOOD and config.anchor.weight > 0


def _alone(config: Training) -> bool:
    return config.objective.name not in LIKELIHOOD and config.anchor.weight == 0


def _refreshed(config: Training) -> bool:
    return config.objective.name == "lazy_ml" or _anchored(config)


def _noise(began: Training) -> str:
    if began.objective.levels > 1:
        return "levels"
    return "constant" if began.objective.sigma_end is None else "annealed"


def _with_noise(config: Training, kind: str) -> Training:
    """Returns dsm with constant noise, with one that changes over the training, or with levels."""
    found = config.objective
    end = None if kind == "constant" else found.sigma_end or found.sigma
    levels = max(found.levels, 2) if kind == "levels" else 1
    return config.changed(objective={"sigma_end": end, "levels": levels})


def _last_noise(began: Training) -> float:
    return began.objective.sigma_end or began.objective.sigma


def _logit_scaled(config: Training) -> bool:
    return config.preprocess.normalize == "none" and config.preprocess.logit is not None


def _shrunk(config: Training) -> bool:
    return config.preprocess.normalize == "whiten" and bool(config.preprocess.shrinkage)


SPACE: Space = {
    "architecture": (
        choice("model.architecture", _suited, sets=_other_net),
        *_of_nets(),
    ),
    "activation": (
        *(
            choice("model.activation", names, _is(net), f"of {net}", _own("activation"))
            for net, names in NETWORKS.items()
        ),
        choice("model.cells", (8, 16, 32), _learns("spline"), start=_own("cells")),
    ),
    "base": (choice("model.base", ("normal", "mixture")),),
    "anchor": (
        choice("anchored", (False, True), _alone, start=_anchored,
               sets=lambda config, used: config.changed(anchor={"weight": float(used)})),
        log("anchor.weight", (0.1, 10.0), _anchored, start=lambda c: c.anchor.weight or 1.0),
        whole("anchor.interval", (20, 500), _refreshed),
        optional("anchor.tolerance", (0.02, 0.5), _refreshed),
    ),
    "objective": (
        log("objective.sigma", (0.03, 1.0), _uses("sigma")),
        choice("noise", ("constant", "annealed", "levels"), _uses("sigma"), start=_noise,
               sets=_with_noise),
        log("objective.sigma_end", (0.03, 1.0), lambda c: _noise(c) != "constant",
            start=_last_noise),
        whole("objective.levels", (2, 10), lambda c: _noise(c) == "levels",
              start=lambda c: max(c.objective.levels, 2)),
        log("objective.epsilon", (0.01, 1.0), _uses("epsilon")),
        log("objective.step", (0.003, 0.3), _uses("step")),
        whole("objective.slices", (1, 4), _uses("slices")),
        choice("objective.every", (1, 2, 5, 10), _anchored),
    ),
    "stabilisation": (
        optional("stabilise.low_energy", (1e-3, 1, 0.0), _but("relative_ml")),
        optional("stabilise.latent_mean", (1e-2, 10, 0.0), _but("relative_ml")),
        choice("stabilise.finish", (0.0, 0.05, 0.1, 0.2), _but("ml", "relative_ml")),
    ),
    "optimization": (
        log("train.lr", lambda c: (c.train.lr / 4, c.train.lr * 4)),
        choice("train.schedule", ("cosine", "constant")),
        choice("train.ema_decay", (0.99, 0.997, 0.999)),
        optional("train.clip", (1.0, 1000.0)),
    ),
    "preprocessing": (
        choice("preprocess.normalize", ("whiten", "standardize", "none")),
        log("preprocess.shrinkage", (1e-4, 0.1), _shrunk),
        log("preprocess.scale", (0.25, 4.0), _logit_scaled),
    ),
    "start": (
        choice("model.sign", (1, -1), _is(*LINEAR), start=lambda c: int(known(c.model)["sign"])),
        real("model.bias", (-1.0, 1.0), _is(*LINEAR), start=_own("bias")),
    ),
}  # fmt: skip
"""By subject, what is searched of it.

Adam does not see the scale of a loss, so the anchor's weight beside a fixed one of the objective
is all there is to weigh.
"""


def space(search: DensitySearch) -> Space:
    """Returns the space of a search: the objective is chosen before all else."""

    def others(config: Training) -> set[str]:
        return {*search.objectives} - {config.objective.name}

    objective = choice("objective.name", search.objectives, others, sets=with_objective)
    return {FIRST: [objective], **SPACE}
