"""The space of trainings of a flow, one function a subject.

A parameter that has no meaning for what was chosen before is not asked for.
"""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from ebflow.architectures import ACTIVATIONS, ARCHITECTURES
from pipelines.config import LIKELIHOOD, AnchorConfig, ModelConfig, ObjectiveConfig, Training
from pipelines.training.nets import options
from tuning import suggest
from tuning.density.config import DensitySearch, with_objective
from tuning.suggest import Overrides, Space, Suggest


def propose(ask: Suggest, config: DensitySearch, base: Training) -> Training:
    """Returns the configuration of a trial; the objective is chosen before all else."""
    names = dict.fromkeys((base.objective.name, *config.objectives))
    if len(names) > 1:
        base = with_objective(base, ask.choice("objective.name", *names))
    spaces = {**SPACES, "architecture": partial(architecture, named=config.architectures)}
    return suggest.propose(ask, spaces, config.over, base)


COLUMNS = ("dense", "coupling", "autoregressive")
IMAGES = ("dense", "convolutional", "glow")

SIZES: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "dense": {"depth": (3, 1, 6)},
    "convolutional": {"depth": (2, 1, 3)},
    "glow": {"depth": (4, 2, 8), "hidden": (64, 32, 128)},
    "coupling": {"depth": (6, 2, 12), "hidden": (64, 16, 128)},
    "autoregressive": {"depth": (3, 2, 6), "hidden": (64, 16, 256)},
}
"""By architecture and option: where the search starts if the base has another one, and a range."""

FORMS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "convolutional": {"kernel_size": (3, 5, 7)},
    "coupling": {"bins": (None, 8)},
    "autoregressive": {"bins": (8, 4, 16), "mixing": ("reversal", "rotation")},
}
"""Likewise, what is chosen from; the first is where the search starts."""


def architecture(ask: Suggest, base: Training, named: tuple[str, ...] = ()) -> Overrides:
    """Suggests the architecture, its depth and its widths, and the form of its layers.

    Of the base's options those stay that the architecture has, and that mean the same.
    """
    suited = named or (COLUMNS if base.preprocess.logit is None else IMAGES)
    name = ask.choice("model.architecture", base.model.architecture, *suited)
    model = _kept(base.model, name)
    used = _options(model) if name == base.model.architecture else {}
    fields = {"architecture": name, **model.model_dump()}
    for option, (begin, low, high) in SIZES.get(name, {}).items():
        begin = used.get(option, begin)
        fields[option] = ask.whole(f"model.{option} of {name}", begin, low, high)
    for option, forms in FORMS.get(name, {}).items():
        forms = dict.fromkeys((used.get(option, forms[0]), *forms))
        fields[option] = ask.choice(f"model.{option} of {name}", *forms)
    if fields["bins"] != model.bins:
        fields |= {"bound": None, "shift_activation": None}
    return {"model": fields}


def _kept(model: ModelConfig, name: str) -> ModelConfig:
    """Returns what another architecture keeps of a net's options; all if it is the same."""
    if name == model.architecture:
        return model
    kept = {"architecture": name, "base": model.base}
    if name in LINEAR and model.activation in ACTIVATIONS:
        kept |= {option: getattr(model, option) for option in LEARNING}
    return ModelConfig(**kept)


def _options(model: ModelConfig) -> dict[str, Any]:
    """Returns all options of a net, with the architecture's own defaults."""
    known = inspect.signature(ARCHITECTURES[model.architecture]).parameters
    return {**{name: option.default for name, option in known.items()}, **options(model)}


LINEAR = ("dense", "convolutional")
"""The architectures of linear layers with activations between, which start as an identity."""

LEARNING = ("activation", "cells", "terms", "reach")

NETWORKS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(LINEAR, ACTIVATIONS),
    "coupling": ("swish", "elu"),
    "glow": ("leaky_relu", "swish"),
}
"""The activations of architectures that have a choice."""


def activation(ask: Suggest, base: Training) -> Overrides:
    """Suggests the activation where there is a choice, and its size if it is learned."""
    name = base.model.architecture
    if name not in NETWORKS:
        return {}
    used = _options(base.model)
    chosen = ask.choice(f"model.activation of {name}", used["activation"], *NETWORKS[name])
    fields = {"activation": chosen}
    if chosen == "spline":
        fields["cells"] = ask.choice("model.cells", used["cells"], 8, 16, 32)
    if chosen == "tanh":
        fields["terms"] = ask.whole("model.terms", used["terms"], 3, 12)
    return {"model": fields}


def latents(ask: Suggest, base: Training) -> Overrides:
    """Suggests the base: N(0, I), heavier tails, or the mixture that EM fits."""
    return {"model": {"base": ask.choice("model.base", base.model.base, *BASES)}}


BASES = ("normal", "student", "mixture")


def anchor(ask: Suggest, base: Training) -> Overrides:
    """Suggests the anchor's weight and rule; the rule alone for lazy_ml, nothing for likelihoods.

    Adam does not see the scale of a loss, so the weight beside a fixed one of the objective is all
    there is to weigh.
    """
    found, name = base.anchor, base.objective.name
    if name == "lazy_ml":
        return {"anchor": _rule(ask, found)}
    if name in LIKELIHOOD:
        return {}
    if not found.weight and not ask.choice("anchored", False, True):
        return {}
    weight = ask.log("anchor.weight", found.weight or 1.0, 0.1, 10.0)
    return {"anchor": {"weight": weight, **_rule(ask, found)}}


def _rule(ask: Suggest, base: AnchorConfig) -> dict[str, Any]:
    interval = ask.whole("anchor.interval", base.interval, 20, 500)
    tolerance = ask.optional("anchor.tolerance", base.tolerance, 0.02, 0.5)
    return {"interval": interval, "tolerance": tolerance}


def objective(ask: Suggest, base: Training) -> Overrides:
    """Suggests noise, steps of differences, slices, and how seldom scores are matched."""
    found, used = base.objective, base.objective.options
    fields: dict[str, Any] = {}
    if "sigma" in used:
        fields |= _noise(ask, found)
    if "epsilon" in used:
        fields["epsilon"] = ask.log("objective.epsilon", found.epsilon, 0.01, 1.0)
    if "step" in used:
        fields["step"] = ask.log("objective.step", found.step, 0.003, 0.3)
    if "slices" in used:
        fields["slices"] = ask.whole("objective.slices", found.slices, 1, 4)
    if "every" in used and base.anchor.weight:
        fields["every"] = ask.choice("objective.every", found.every, 1, 2, 5, 10)
    return {"objective": fields}


def _noise(ask: Suggest, base: ObjectiveConfig) -> dict[str, Any]:
    """Suggests the noise of dsm: constant, falling or rising over the training, or of levels."""
    sigma = ask.log("objective.sigma", base.sigma, 0.03, 1.0)
    kind = ask.choice("noise", _kind(base), "constant", "annealed", "levels")
    if kind == "constant":
        return {"sigma": sigma, "sigma_end": None, "levels": 1}
    end = ask.log("objective.sigma_end", base.sigma_end or base.sigma, 0.03, 1.0)
    levels = 1
    if kind == "levels":
        levels = ask.whole("objective.levels", max(base.levels, 2), 2, 10)
    return {"sigma": sigma, "sigma_end": end, "levels": levels}


def _kind(base: ObjectiveConfig) -> str:
    if base.levels > 1:
        return "levels"
    return "constant" if base.sigma_end is None else "annealed"


def stabilisation(ask: Suggest, base: Training) -> Overrides:
    """Suggests low energy, latent mean and the length of a finish by exact likelihood."""
    found, name = base.stabilise, base.objective.name
    fields: dict[str, Any] = {}
    if name != "relative_ml":
        fields = {
            "low_energy": ask.optional("stabilise.low_energy", found.low_energy, 1e-3, 1) or 0.0,
            "latent_mean": ask.optional("stabilise.latent_mean", found.latent_mean, 1e-2, 10)
            or 0.0,
        }
    if name not in ("ml", "relative_ml"):
        fields["finish"] = ask.choice("stabilise.finish", found.finish, 0.0, 0.05, 0.1, 0.2)
    return {"stabilise": fields}


def optimisation(ask: Suggest, base: Training) -> Overrides:
    """Suggests learning rate, schedule, the average of the weights, and a bound of gradients."""
    found = base.train
    return {
        "train": {
            "lr": ask.log("train.lr", found.lr, found.lr / 4, found.lr * 4),
            "schedule": ask.choice("train.schedule", found.schedule, "cosine", "constant"),
            "ema_decay": ask.choice("train.ema_decay", found.ema_decay, 0.99, 0.997, 0.999),
            "clip": ask.optional("train.clip", found.clip, 1.0, 1000.0),
        }
    }


def preprocessing(ask: Suggest, base: Training) -> Overrides:
    """Suggests whitening and its shrinkage; the logit's divisor where nothing undoes it."""
    found = base.preprocess
    fields = {
        "normalise": ask.choice(
            "preprocess.normalise", found.normalise, "whiten", "standardise", "none"
        )
    }
    if fields["normalise"] == "whiten" and found.shrinkage:
        fields["shrinkage"] = ask.log("preprocess.shrinkage", found.shrinkage, 1e-4, 0.1)
    if fields["normalise"] == "none" and found.logit is not None:
        fields["scale"] = ask.log("preprocess.scale", found.scale, 0.25, 4.0)
    return {"preprocess": fields}


def start(ask: Suggest, base: Training) -> Overrides:
    """Suggests the sign and the offset that linear layers start with, where the net has them."""
    used = options(base.model)
    fields = {}
    if base.model.architecture in LINEAR:
        fields["sign"] = ask.choice("model.sign", int(used.get("sign", 1)), 1, -1)
        fields["bias"] = ask.real("model.bias", used.get("bias", 0.0), -1.0, 1.0)
    return {"model": fields}


SPACES: Mapping[str, Space] = {
    "architecture": architecture,
    "activation": activation,
    "base": latents,
    "anchor": anchor,
    "objective": objective,
    "stabilisation": stabilisation,
    "optimisation": optimisation,
    "preprocessing": preprocessing,
    "start": start,
}
"""By subject, in the order in which they are asked."""
