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

from ebflow.architectures import ACTIVATIONS
from pipelines.config import Coupling, Dsm, LearnedInverse, Model, ScoreMatching, Training
from pipelines.config.model import MODELS
from pipelines.training.rivals import ARCHITECTURES
from tuning.config import SearchConfig, Subject


class Suggest:
    """Asks a trial of Optuna for parameters; without a trial each has the default's own value.

    Ranges are widened to contain that value, so that the default is a point of the space.
    Parameters have the names of the options that they set.

    Attributes:
        params: The value of each parameter, by its name.
    """

    def __init__(self, trial: BaseTrial | None = None) -> None:
        self.trial = trial
        self.params: dict[str, Any] = {}

    def number(self, name: str, own: float, low: float, high: float) -> float:
        """Returns a number whose logarithm is uniform; a whole number if the default's is."""
        method = "suggest_int" if isinstance(own, int) else "suggest_float"
        low, high = min(low, own), max(high, own)
        return self._ask(method, name, own, low=low, high=high, log=True)

    def choice(self, name: str, own: Any, *others: Any) -> Any:  # noqa: ANN401
        """Returns one of several values."""
        choices = list(dict.fromkeys((own, *others)))
        return self._ask("suggest_categorical", name, own, choices=choices)

    def optional(
        self, name: str, own: float | None, low: float, high: float, unused: float | None = None
    ) -> float | None:
        """Returns a number whose logarithm is uniform, or ``unused``."""
        if not self.choice(f"{name} used", bool(own), True, False):
            return unused
        return self.number(name, own or math.sqrt(low * high), low, high)

    def _ask(self, method: str, name: str, own: Any, **range: Any) -> Any:  # noqa: ANN401
        value = own if self.trial is None else getattr(self.trial, method)(name, **range)
        self.params[name] = value
        return value


COLUMNS = ("dense", "coupling", "autoregressive")
IMAGES = ("dense", "convolutional", "glow")

OPTIONS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "dense": {"depth": ("number", 1, 6), "activation": ("choice", *ACTIVATIONS)},
    "convolutional": {
        "depth": ("number", 1, 3),
        "kernel_size": ("choice", 3, 5, 7),
        "activation": ("choice", *ACTIVATIONS),
    },
    "glow": {
        "depth": ("number", 2, 8),
        "hidden": ("number", 32, 128),
        "activation": ("choice", "leaky_relu", "swish"),
    },
    "coupling": {
        "depth": ("number", 2, 12),
        "hidden": ("number", 16, 128),
        "activation": ("choice", "swish", "elu"),
        "bins": ("choice", None, 8),
    },
    "autoregressive": {
        "depth": ("choice", None, 2, 3, 4, 6),
        "hidden": ("choice", None, 64, 128, 256, 512),
        "bins": ("choice", 4, 8, 16),
        "mixing": ("choice", "reversal", "rotation"),
    },
}
"""By architecture and option: the method of :class:`Suggest`, and the ends or values."""

OBJECTIVE_OPTIONS = {
    "epsilon": ("number", 0.01, 1.0),
    "step": ("number", 0.003, 0.3),
    "slices": ("number", 1, 4),
}
"""The same for options of objectives, besides the noise of dsm."""


def model_options(model: Model) -> dict[str, Any]:
    """Returns all options of an architecture, with its own defaults."""
    parameters = inspect.signature(ARCHITECTURES[model.architecture]).parameters
    return {**{name: option.default for name, option in parameters.items()}, **model.options}


def _architecture(suggest: Suggest, start: Training) -> Training:
    own = start.model
    if isinstance(start.objective, LearnedInverse):  # for dense layers of one kind alone
        return start
    suited = COLUMNS if start.preprocess.logit is None else IMAGES
    name = suggest.choice("model.architecture", own.architecture, *suited)
    base = suggest.choice("model.base", own.base, "normal", "mixture")
    same = name == own.architecture
    model = own.changed(base=base) if same else MODELS[name](base=base)
    for option, (kind, *values) in OPTIONS.get(name, {}).items():
        before = model_options(own)[option] if same else values[0]
        value = getattr(suggest, kind)(f"model.{option} of {name}", before, *values)
        if isinstance(model, Coupling) and option == "bins" and value != model.bins:
            model = model.changed(bound=None)  # it is for other couplings
        model = model.changed(**{option: value})
    return start.changed(model=model)


def _anchor(suggest: Suggest, start: Training) -> Training:
    own, weight, changed = start.anchor, start.anchor.weight, {}
    scores = isinstance(start.objective, ScoreMatching)
    if scores and not weight:
        weight = float(suggest.choice("anchored", False, True))
    if scores and weight:
        changed["weight"] = suggest.number("anchor.weight", weight, 0.1, 10.0)
    if changed or start.objective.name == "lazy_ml":
        changed["interval"] = suggest.number("anchor.interval", own.interval, 20, 500)
        changed["tolerance"] = suggest.optional("anchor.tolerance", own.tolerance, 0.02, 0.5)
    return start.changed(anchor=changed)


def _objective(suggest: Suggest, start: Training) -> Training:
    own = start.objective
    changed = _noise(suggest, own) if isinstance(own, Dsm) else {}
    for option, (kind, low, high) in OBJECTIVE_OPTIONS.items():
        if hasattr(own, option):
            before = getattr(own, option)
            changed[option] = getattr(suggest, kind)(f"objective.{option}", before, low, high)
    if isinstance(own, ScoreMatching) and start.anchor.weight:
        changed["every"] = suggest.choice("objective.every", own.every, 1, 2, 5, 10)
    return start.changed(objective=changed)


def _noise(suggest: Suggest, own: Dsm) -> dict[str, Any]:
    """Asks for the noise: constant, changing over the training, or with several levels."""
    kind = "constant" if own.sigma_end is None else "annealed"
    kind = "levels" if own.levels > 1 else kind
    sigma = suggest.number("objective.sigma", own.sigma, 0.03, 1.0)
    kind = suggest.choice("noise", kind, "constant", "annealed", "levels")
    end, levels = None, 1
    if kind != "constant":
        end = suggest.number("objective.sigma_end", own.sigma_end or own.sigma, 0.03, 1.0)
    if kind == "levels":
        levels = suggest.number("objective.levels", max(own.levels, 2), 2, 10)
    return {"sigma": sigma, "sigma_end": end, "levels": levels}


def _stabilisation(suggest: Suggest, start: Training) -> Training:
    own, name, changed = start.stabilise, start.objective.name, {}
    if name != "relative_ml":
        low, latent = own.low_energy, own.latent_mean
        changed["low_energy"] = suggest.optional("stabilise.low_energy", low, 1e-3, 1, 0.0)
        changed["latent_mean"] = suggest.optional("stabilise.latent_mean", latent, 1e-2, 10, 0.0)
    if name not in ("ml", "relative_ml"):
        changed["finish"] = suggest.choice("stabilise.finish", own.finish, 0.0, 0.05, 0.1, 0.2)
    return start.changed(stabilise=changed)


def _optimization(suggest: Suggest, start: Training) -> Training:
    own = start.train
    return start.changed(
        train={
            "lr": suggest.number("train.lr", own.lr, own.lr / 4, own.lr * 4),
            "schedule": suggest.choice("train.schedule", own.schedule, "cosine", "constant"),
            "ema_decay": suggest.choice("train.ema_decay", own.ema_decay, 0.99, 0.997, 0.999),
            "clip": suggest.optional("train.clip", own.clip, 1.0, 1000.0),
        }
    )


def _preprocessing(suggest: Suggest, start: Training) -> Training:
    own, kinds = start.preprocess, ("whiten", "standardize", "none")
    chosen = suggest.choice("preprocess.normalize", own.normalize, *kinds)
    changed = {"normalize": chosen}
    if chosen == "whiten" and own.shrinkage:
        changed["shrinkage"] = suggest.number("preprocess.shrinkage", own.shrinkage, 1e-4, 0.1)
    if chosen == "none" and own.logit is not None:
        changed["scale"] = suggest.number("preprocess.scale", own.scale, 0.25, 4.0)
    return start.changed(preprocess=changed)


SUBJECTS: Mapping[Subject, Callable[[Suggest, Training], Training]] = {
    "architecture": _architecture,
    "anchor": _anchor,
    "objective": _objective,
    "stabilisation": _stabilisation,
    "optimization": _optimization,
    "preprocessing": _preprocessing,
}
"""The subjects in the order in which a trial is asked for them.

The weight of the objective is not searched: Adam ignores the scale of a loss, so only the ratio of
the anchor's weight to it has an effect.
"""


def space(suggest: Suggest, base: Training, search: SearchConfig) -> Training:
    """Returns the training that a trial proposes: the base with the options that it suggests."""
    training = base
    for name, subject in SUBJECTS.items():
        if name in search.over:
            training = subject(suggest, training)
    return Training.model_validate(training.model_dump())


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


def parameters(base: Training, search: SearchConfig) -> dict[str, Any]:
    """Returns the parameters of the base and their values."""
    suggest = Suggest()
    space(suggest, base, search)
    return suggest.params
