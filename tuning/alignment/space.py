"""The space of regularisers of a classifier, one function a subject.

A parameter that has no meaning for what was chosen before is not asked for: exact traces have no
directions, only differences have a step, and only score matching has a floor and a stability. Of
the one-sided estimator strength and step are parameters of their own: its noise,
4 ‖g‖²/(K σ²), asks for a larger step, and acts as a gradient-norm penalty at a much larger
strength (``ebflow.alignment.regularisers``).
"""

from collections.abc import Mapping
from typing import Any

from pipelines.gradient_alignment.config import ClassifierConfig, RegulariserConfig
from tuning import suggest
from tuning.alignment.config import AlignmentSearch
from tuning.suggest import Overrides, Space, Suggest

ONE_SIDED = "taylor"
ESTIMATORS = ("taylor_cv", "taylor", "two_sided", "hutchinson", "exact")
DIRECTIONS = ("rademacher", "gaussian", "sphere")
TRACED = ("score", "anti")
"""The penalties that estimate a trace."""

STRENGTH = {True: 1e-3, False: 0.1}
"""Where the strength starts, by whether the estimator is one-sided, if the base's is not of it."""

STEPS = {True: (0.05, 0.3), False: (3e-3, 0.3)}
"""The range of steps, likewise."""


def propose(ask: Suggest, config: AlignmentSearch, base: ClassifierConfig) -> ClassifierConfig:
    """Returns the configuration of a trial."""
    return suggest.propose(ask, SPACES, config.over, base)


def estimator(ask: Suggest, base: ClassifierConfig) -> Overrides:
    """Suggests the estimator of the trace, its directions and their number, and its step.

    One that is one-sided where the base's was not, or the other way, starts at its own strength.
    """
    found = base.regulariser
    if found.name not in TRACED:
        return {}
    name = ask.choice("regulariser.estimator", found.estimator, *ESTIMATORS)
    fields: dict[str, Any] = {"estimator": name}
    if name != "exact":
        fields["directions"] = ask.choice("regulariser.directions", found.directions, *DIRECTIONS)
        fields["slices"] = ask.choice("regulariser.slices", found.slices, 1, 2, 4)
    if name not in ("exact", "hutchinson"):
        fields["step"] = _step(ask, found, name)
    if _changes_side(found, name):
        fields["weight"] = STRENGTH[name == ONE_SIDED]
    return {"regulariser": fields}


def _changes_side(base: RegulariserConfig, name: str) -> bool:
    return (name == ONE_SIDED) != (base.estimator == ONE_SIDED)


def _step(ask: Suggest, base: RegulariserConfig, name: str) -> float:
    low, high = STEPS[name == ONE_SIDED]
    start = max(base.step, low) if _changes_side(base, name) else base.step
    return ask.log(_of("regulariser.step", name), start, low, high)


def strength(ask: Suggest, base: ClassifierConfig) -> Overrides:
    """Suggests λ."""
    found = base.regulariser
    side = found.estimator if found.name in TRACED else ""
    return {"regulariser": {"weight": ask.log(_of("regulariser.weight", side), found.weight,
                                              1e-6, 1.0)}}  # fmt: skip


def _of(option: str, estimator: str) -> str:
    """Returns the name of a parameter, which the one-sided estimator has for itself."""
    return f"{option} one-sided" if estimator == ONE_SIDED else option


def stabilisation(ask: Suggest, base: ClassifierConfig) -> Overrides:
    """Suggests what keeps a trace from running away: μ and a floor of score, a ceiling of anti."""
    found = base.regulariser
    if found.name == "anti":
        return {"regulariser": {"ceiling": ask.log("regulariser.ceiling", found.ceiling, 10, 1e5)}}
    if found.name != "score":
        return {}
    return {
        "regulariser": {
            "stability": ask.optional("regulariser.stability", found.stability, 1e-6, 1e-2) or 0.0,
            "floor": ask.optional("regulariser.floor", found.floor, 1.0, 4.0),
        }
    }


def noise(ask: Suggest, base: ClassifierConfig) -> Overrides:
    """Suggests the noise of the training rows."""
    return {"noise": ask.real("noise", base.noise, 0.0, 0.3)}


def optimisation(ask: Suggest, base: ClassifierConfig) -> Overrides:
    """Suggests the share of training over which λ rises, and a bound of gradients.

    Training without a bound is in the space if the base has none.
    """
    warmup = ask.real("regulariser.warmup", base.regulariser.warmup, 0.0, 0.3)
    if base.clip is None:
        clip = ask.optional("clip", None, 1.0, 10.0)
    else:
        clip = ask.log("clip", base.clip, 1.0, 10.0)
    return {"regulariser": {"warmup": warmup}, "clip": clip}


SPACES: Mapping[str, Space] = {
    "estimator": estimator,
    "strength": strength,
    "stabilisation": stabilisation,
    "noise": noise,
    "optimisation": optimisation,
}
"""By subject, in the order in which they are asked."""
