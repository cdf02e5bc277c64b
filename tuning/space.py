"""The search space: the options of a training that a trial proposes.

A proposal asks for one parameter after another. It asks only for those that have an effect beside
what it has chosen before, such as noise levels for denoising alone.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from optuna.trial import BaseTrial

from ebflow.architectures import ACTIVATIONS, ARCHITECTURES
from pipelines.config import Coupling, Dsm, Model, ScoreMatching, Training
from pipelines.config.model import MODELS
from pipelines.config.objective import LearnedInverse
from tuning.config import SearchConfig, Subject


class Suggest:
    """Asks a trial of Optuna for parameters, which are options of a training.

    Ranges are widened to contain the option's value before, so that the default is a point of the
    space. Without a trial, each option stays as it is. A parameter has the name of its option,
    perhaps followed by a word that distinguishes it from others.

    Attributes:
        training: The training with the options that were asked for so far.
        params: The value of each parameter, by its name.
    """

    def __init__(self, training: Training, trial: BaseTrial | None = None) -> None:
        self.training, self.trial = training, trial
        self.params: dict[str, Any] = {}

    def number(self, name: str, low: float, high: float) -> None:
        """Asks for a number whose logarithm is uniform; a whole number if it is one before."""
        own = self._own(name)
        method = "suggest_int" if isinstance(own, int) else "suggest_float"
        low, high = min(low, own), max(high, own)
        self.set(name, self._ask(method, name, own, low=low, high=high, log=True))

    def choice(self, name: str, *values: Any) -> None:  # noqa: ANN401
        """Asks for one of several values."""
        self.set(name, self.pick(name, self._own(name), *values))

    def optional(self, name: str, low: float, high: float, unused: float | None = None) -> None:
        """Asks for a number whose logarithm is uniform, or ``unused``."""
        own = self._own(name)
        if self.pick(f"{name} used", bool(own), True, False):
            self.set(name, own or math.sqrt(low * high))
            self.number(name, low, high)
        else:
            self.set(name, unused)

    def pick(self, name: str, own: Any, *others: Any) -> Any:  # noqa: ANN401
        """Returns one of several values of a parameter that is no option."""
        choices = list(dict.fromkeys((own, *others)))
        return self._ask("suggest_categorical", name, own, choices=choices)

    def set(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Sets the option of a parameter."""
        section, option = name.split()[0].split(".")
        self.training = self.training.changed(**{section: {option: value}})

    def _own(self, name: str) -> Any:  # noqa: ANN401
        section, option = name.split()[0].split(".")
        return getattr(getattr(self.training, section), option)

    def _ask(self, method: str, name: str, own: Any, **range: Any) -> Any:  # noqa: ANN401
        value = own if self.trial is None else getattr(self.trial, method)(name, **range)
        self.params[name] = value
        return value


COLUMNS = ("dense", "coupling", "autoregressive")
IMAGES = ("dense", "convolutional", "glow")

# By architecture and option: the ends of a range of numbers, or the values to choose from.
OPTIONS: Mapping[str, Mapping[str, tuple[int, int] | list[Any]]] = {
    "dense": {"depth": (1, 6), "activation": [*ACTIVATIONS]},
    "convolutional": {"depth": (1, 3), "kernel_size": [3, 5, 7], "activation": [*ACTIVATIONS]},
    "glow": {"depth": (2, 8), "hidden": (32, 128), "activation": ["leaky_relu", "swish"]},
    "pixelcnn": {"depth": (2, 8), "hidden": (16, 64)},
    "coupling": {
        "depth": (2, 12),
        "hidden": (16, 128),
        "activation": ["swish", "elu"],
        "bins": [None, 8],
    },
    "autoregressive": {
        "depth": [None, 2, 3, 4, 6],
        "hidden": [None, 64, 128, 256, 512],
        "bins": [4, 8, 16],
        "mixing": ["reversal", "rotation"],
    },
}

# The ends of the ranges of numbers that objectives have, besides the noise of dsm.
OBJECTIVE_OPTIONS = {"epsilon": (0.01, 1.0), "step": (0.003, 0.3), "slices": (1, 4)}


def _architecture(suggest: Suggest) -> None:
    own = suggest.training.model
    suited = COLUMNS if suggest.training.preprocess.logit is None else IMAGES
    pixels = own.architecture == "pixelcnn"  # which has another preprocessing than the others
    fixed = pixels or isinstance(suggest.training.objective, LearnedInverse)
    name = suggest.pick("model.architecture", own.architecture, *(() if fixed else suited))
    if not pixels:
        suggest.choice("model.base", "normal", "mixture")
    model = suggest.training.model
    if name != own.architecture:
        model = MODELS[name](base=model.base)
    suggest.training = suggest.training.changed(model=model)
    for option, values in OPTIONS.get(name, {}).items():
        parameter = f"model.{option} of {name}"
        suggest.set(parameter, values[0] if name != own.architecture else _option(own, option))
        ask = suggest.number if isinstance(values, tuple) else suggest.choice
        ask(parameter, *values)
    if isinstance(model, Coupling) and suggest.training.model.bins != model.bins:
        suggest.set("model.bound", None)  # it is for the couplings before


def _option(model: Model, name: str) -> Any:  # noqa: ANN401
    """Returns an option of a model, which may be the default of its architecture."""
    default = inspect.signature(ARCHITECTURES[model.architecture]).parameters[name].default
    return model.options.get(name, default)


def _anchor(suggest: Suggest) -> None:
    training = suggest.training
    weight, anchored = training.anchor.weight, training.objective.name == "lazy_ml"
    if isinstance(training.objective, ScoreMatching):
        anchored = bool(weight) or suggest.pick("anchored", False, True)
        if anchored:
            suggest.set("anchor.weight", weight or 1.0)
            suggest.number("anchor.weight", 0.1, 10.0)
    if anchored:
        suggest.number("anchor.interval", 20, 500)
        suggest.optional("anchor.tolerance", 0.02, 0.5)


def _objective(suggest: Suggest) -> None:
    own = suggest.training.objective
    if isinstance(own, Dsm):
        _noise(suggest, own)
    for option, ends in OBJECTIVE_OPTIONS.items():
        if hasattr(own, option):
            suggest.number(f"objective.{option}", *ends)
    if isinstance(own, ScoreMatching) and suggest.training.anchor.weight:
        suggest.choice("objective.every", 1, 2, 5, 10)


def _noise(suggest: Suggest, own: Dsm) -> None:
    """Asks for the noise: constant, or changing over the training."""
    kind = "constant" if own.sigma_end is None else "annealed"
    suggest.number("objective.sigma", 0.03, 1.0)
    kind = suggest.pick("noise", kind, "constant", "annealed")
    suggest.training = suggest.training.changed(objective={"sigma_end": None})
    if kind != "constant":
        suggest.set("objective.sigma_end", own.sigma_end or own.sigma)
        suggest.number("objective.sigma_end", 0.03, 1.0)


def _stabilisation(suggest: Suggest) -> None:
    objective = suggest.training.objective
    name = objective.name
    if name != "relative_ml" and not isinstance(objective, LearnedInverse):
        suggest.optional("stabilise.low_energy", 1e-3, 1, 0.0)
        suggest.optional("stabilise.latent_mean", 1e-2, 10, 0.0)
    if name not in ("ml", "relative_ml"):
        suggest.choice("stabilise.finish", 0.0, 0.05, 0.1, 0.2)


def _optimization(suggest: Suggest) -> None:
    lr = suggest.training.train.lr
    suggest.number("train.lr", lr / 4, lr * 4)
    suggest.choice("train.schedule", "cosine", "constant")
    suggest.choice("train.ema_decay", 0.99, 0.997, 0.999)
    suggest.optional("train.clip", 1.0, 1000.0)


def _preprocessing(suggest: Suggest) -> None:
    suggest.choice("preprocess.normalize", "whiten", "standardize", "none")
    chosen = suggest.training.preprocess
    if chosen.normalize == "whiten" and chosen.shrinkage:
        suggest.number("preprocess.shrinkage", 1e-4, 0.1)
    if chosen.normalize == "none" and chosen.logit is not None:
        suggest.number("preprocess.scale", 0.25, 4.0)


# The subjects in the order in which a trial is asked for them. The weight of the objective is not
# searched: Adam ignores the scale of a loss, so only the ratio of the anchor's weight to it has an
# effect.
SUBJECTS: Mapping[Subject, Callable[[Suggest], None]] = {
    "architecture": _architecture,
    "anchor": _anchor,
    "objective": _objective,
    "stabilisation": _stabilisation,
    "optimization": _optimization,
    "preprocessing": _preprocessing,
}
WITHOUT_EFFECT = ("anchor", "stabilisation", "preprocessing")  # On probabilities of pixels


def space(suggest: Suggest, search: SearchConfig) -> Training:
    """Returns the training that a trial proposes: the suggestion's own, with other options."""
    for name, subject in SUBJECTS.items():
        pixels = suggest.training.model.architecture == "pixelcnn"
        if name in search.over and not (pixels and name in WITHOUT_EFFECT):
            subject(suggest)
    return suggest.training


def parameters(base: Training, search: SearchConfig) -> dict[str, Any]:
    """Returns the parameters of the base and their values."""
    suggest = Suggest(base)
    space(suggest, search)
    return suggest.params


def first_points(base: Training, search: SearchConfig) -> list[dict[str, Any]]:
    """Returns the parameters of the first trials, without those that Optuna samples.

    The first trial is the base. Each of the others leaves one subject to Optuna: random values of
    all subjects at once are rarely as good as a base that somebody has chosen.
    """
    default = parameters(base, search)
    chosen = (name for name in SUBJECTS if name in search.over)
    subjects = [parameters(base, search.changed(over=(name,))) for name in chosen]
    turns = itertools.islice(itertools.cycle(filter(None, subjects)), search.random - 1)
    others = [
        {name: value for name, value in default.items() if name not in sampled}
        for sampled in turns
    ]
    return [default, *others]
