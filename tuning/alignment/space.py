"""The space of regularizers of a classifier.

A parameter that has no meaning for what was chosen before is not asked for: exact traces have no
directions, only differences have a step, and only score matching has a floor and a stability. Of
the one-sided estimator strength and step are parameters of their own: its noise,
4 ‖g‖²/(K σ²), asks for a larger step, and acts as a gradient-norm penalty at a much larger
strength (``ebflow.alignment.regularizers``).
"""

from functools import partial

from pipelines.gradient_alignment.config import ClassifierConfig
from tuning.suggest import Space, choice, log, optional, real

ONE_SIDED = "taylor"
ESTIMATORS = ("taylor_cv", "taylor", "two_sided", "hutchinson", "exact")
DIRECTIONS = ("rademacher", "gaussian", "sphere")

STRENGTH = {True: 1e-3, False: 0.1}
"""Where the strength starts, by whether the estimator is one-sided, if the base's is not of it."""


def _scored(config: ClassifierConfig) -> bool:
    return config.regularizer.name == "score"


def _traced(config: ClassifierConfig) -> bool:
    return config.regularizer.name in ("score", "anti")


def _drawn(config: ClassifierConfig) -> bool:
    return _traced(config) and config.regularizer.estimator != "exact"


def _stepped(config: ClassifierConfig) -> bool:
    return _drawn(config) and config.regularizer.estimator != "hutchinson"


def _one_sided(config: ClassifierConfig) -> bool:
    return _traced(config) and config.regularizer.estimator == ONE_SIDED


def _estimated_by(config: ClassifierConfig, name: str) -> ClassifierConfig:
    """Returns another estimator, at a strength of its own where the sides change."""
    changed = {"estimator": name}
    if (name == ONE_SIDED) != _one_sided(config):
        changed["weight"] = STRENGTH[name == ONE_SIDED]
    return config.changed(regularizer=changed)


def _step(began: ClassifierConfig, *, one_sided: bool, least: float) -> float:
    step = began.regularizer.step
    return step if _one_sided(began) == one_sided else max(step, least)


SPACE: Space = {
    "estimator": (
        choice("regularizer.estimator", ESTIMATORS, _traced, sets=_estimated_by),
        choice("regularizer.directions", DIRECTIONS, _drawn),
        choice("regularizer.slices", (1, 2, 4), _drawn),
        log("regularizer.step", (0.05, 0.3), _one_sided, "one-sided",
            partial(_step, one_sided=True, least=0.05)),
        log("regularizer.step", (3e-3, 0.3), lambda c: _stepped(c) and not _one_sided(c),
            start=partial(_step, one_sided=False, least=3e-3)),
    ),
    "strength": (
        log("regularizer.weight", (1e-6, 1.0), _one_sided, "one-sided"),
        log("regularizer.weight", (1e-6, 1.0), lambda c: not _one_sided(c)),
    ),
    "stabilisation": (
        log("regularizer.ceiling", (10, 1e5), lambda c: c.regularizer.name == "anti"),
        optional("regularizer.stability", (1e-6, 1e-2, 0.0), _scored),
        optional("regularizer.floor", (1.0, 4.0), _scored),
    ),
    "noise": (real("noise", (0.0, 0.3)),),
    "optimization": (
        real("regularizer.warmup", (0.0, 0.3)),
        log("clip", (1.0, 10.0), lambda c: c.clip is not None),
        optional("clip", (1.0, 10.0), lambda c: c.clip is None),
    ),
}  # fmt: skip
"""By subject, what is searched of it; training without a bound is in it if the base has none."""
