"""The classifiers of the study, and the control of every claim."""

from dataclasses import dataclass, replace
from typing import Any

from ebflow.alignment.regularizers import disguise, equivalent_strength
from pipelines.config.changes import described
from pipelines.gradient_alignment.config import ClassifierConfig, RegulariserConfig, ShiftConfig

BASELINE = "baseline"

BLIND = {"gaussian": "blind-gaussian", "flow": "blind-flow"}
"""The baseline with a class-blind density on every logit, by the shift's name: the gauge."""

_ONE_SIDED = {"estimator": "taylor", "directions": "gaussian", "slices": 1}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "score": {"weight": 1e-3, "stability": 1e-3, "step": 0.01, **_ONE_SIDED},
        "anti": {"weight": 1e-4, "ceiling": 1000.0, "step": 0.001, **_ONE_SIDED},
        "gnorm": {"weight": 1e-3},
    },
    "official-code": {
        "score": {"weight": 1e-5, "stability": 1e-3, "step": 0.01, **_ONE_SIDED},
        "anti": {"weight": 1e-5, "ceiling": 1e4, "step": 0.001, **_ONE_SIDED},
        "gnorm": {"weight": 1e-5},
    },
    "recommended": {
        "score": {"weight": 0.1, "stability": 1e-3, "floor": 1.5, "warmup": 0.1},
        "anti": {"weight": 1e-2, "ceiling": 1000.0, "warmup": 0.1},
        "gnorm": {"weight": 1e-2},
    },
}
"""Weights λ and options by preset and regularizer; other options have the function's defaults.

The paper and its code disagree on every weight. The paper gives neither σ nor K, so ``paper`` has
those of the code. ``recommended`` comes from the study's measurements; its ``floor`` is in units
of −D/s².
"""

APART = ("seed", "threads", "gpu", "net.name", "regularizer.name")
"""What the line of a training leaves out, or begins with."""


def control(score: RegulariserConfig) -> RegulariserConfig:
    """Returns the gradient-norm penalty of the same strength, the control of score matching."""
    weight = equivalent_strength(**score.options(equivalent_strength))
    return RegulariserConfig(
        name="gnorm", weight=weight, warmup=score.warmup, centred=score.centred
    )


def quiet(score: RegulariserConfig) -> RegulariserConfig:
    """Returns the penalty with the mean of a one-sided ``score`` and hardly any of its noise."""
    return score.changed(estimator="taylor_cv", excess=disguise(**score.options(disguise)))


def penalty_kind(penalty: RegulariserConfig) -> tuple[str, bool]:
    """Returns what a regularizer penalizes, and whether of the centred logit.

    Score matching that has more of a gradient-norm penalty hidden in it than of its own is one.
    """
    strength = control(penalty).weight + penalty.excess * penalty.weight
    disguised = penalty.name == "score" and strength > 2 * penalty.weight
    return "gnorm" if disguised else penalty.name, penalty.centred


def method(config: ClassifierConfig) -> str:
    """Returns how a classifier is trained, in one line: all that is not at its default."""
    name = config.regularizer.name
    loss = "cross-entropy" if name == "none" else f"cross-entropy + {name}"
    return described(f"{loss} on {config.net.name}", ClassifierConfig(), config, APART)


def title(config: RegulariserConfig) -> str:
    """Returns a penalty, its estimator and its strength, as ``score taylor_cv λ 0.1``."""
    if config.name == "none":
        return "cross-entropy"
    estimator = f" {config.estimator}" if config.name in ("score", "anti") else ""
    return f"{config.name}{estimator} λ {config.weight:.2g}"


@dataclass(frozen=True)
class Model:
    """A model of the study.

    Attributes:
        name: Its name.
        about: What it is.
        classifier: What is trained; of one in ``MODELS``, what differs from others of its scale.
        preset: Whose settings its regularizer has; empty if nobody's.
        shift: What is added to its logits.
    """

    name: str
    about: str
    classifier: ClassifierConfig = ClassifierConfig()
    preset: str = ""
    shift: ShiftConfig = ShiftConfig()

    def trained_as(self, others: ClassifierConfig) -> "Model":
        """Returns the model, of which all that it leaves open is as of others."""
        own = {name: getattr(self.classifier, name) for name in self.classifier.model_fields_set}
        return replace(self, classifier=others.changed(**own))


def _preset(preset: str, name: str, **changed: Any) -> RegulariserConfig:  # noqa: ANN401
    return RegulariserConfig(name=name, **{**PRESETS[preset][name], **changed})


def _shifted(name: str, about: str, shift: str, size: float = 100.0) -> Model:
    return Model(name, f"the baseline and {about}", shift=ShiftConfig(name=shift, size=size))


def penalized(
    name: str, about: str, regularizer: RegulariserConfig, preset: str = "", **training: float
) -> Model:
    """Returns a model that is trained with a regularizer, and as is said, otherwise as others."""
    return Model(name, about, ClassifierConfig(regularizer=regularizer, **training), preset)


RECOMMENDED, PAPER, CODE = "recommended", "paper", "official-code"
SCORE = {preset: _preset(preset, "score") for preset in PRESETS}
CENTRED = _preset(RECOMMENDED, "score", centred=True)
CLIP = 5.0

MODELS = {model.name: model for model in (
    Model(BASELINE, "cross-entropy alone"),
    _shifted(BLIND["gaussian"], "a class-blind Gaussian's log-density on every logit", "gaussian"),
    _shifted(BLIND["flow"], "a class-blind flow's log-density on every logit", "flow"),
    penalized("score", "score matching, recommended", SCORE[RECOMMENDED], RECOMMENDED, clip=CLIP),
    penalized("score-free", "the same without the stability penalty",
               _preset(RECOMMENDED, "score", stability=0.0), clip=CLIP),
    penalized("score-control", "gradient norm at score's strength", control(SCORE[RECOMMENDED]),
               RECOMMENDED, clip=CLIP),
    penalized("centred", "score matching of the logit less the mean over classes", CENTRED,
               RECOMMENDED, clip=CLIP),
    penalized("centred-control", "gradient norm of that at the same strength", control(CENTRED),
               RECOMMENDED, clip=CLIP),
    penalized("gnorm", "gradient norm, recommended", _preset(RECOMMENDED, "gnorm"), RECOMMENDED),
    penalized("anti", "anti-score-matching, recommended", _preset(RECOMMENDED, "anti"),
               RECOMMENDED),
    penalized("paper-score", "score matching, paper", SCORE[PAPER], PAPER),
    penalized("paper-control", "gradient norm at paper-score's strength", control(SCORE[PAPER]),
               PAPER),
    penalized("paper-quiet", "paper-score's mean by a quiet estimator", quiet(SCORE[PAPER]),
               PAPER),
    penalized("paper-anti", "anti-score-matching, paper", _preset(PAPER, "anti"), PAPER),
    penalized("code-score", "score matching, official code", SCORE[CODE], CODE),
    penalized("code-control", "gradient norm at code-score's strength", control(SCORE[CODE]),
               CODE),
    _shifted("fool-shift", "100 t·x on every logit", "linear", 100.0),
    _shifted("fool-quadratic", "−50 ‖x − t‖² on every logit", "quadratic", 100.0),
    _shifted("fool-sine", "50 sin(2π t·x) on every logit", "sine", 50.0),
    penalized("fool-weights", "a target gradient trained into the weights",
               RegulariserConfig(name="fool", weight=1e-2)),
    _shifted("fool-ripple", "a ripple on one logit", "ripple", 1000.0),
    penalized("collapse", "score matching without noise and penalty, λ = 1",
               RegulariserConfig(name="score", weight=1.0, stability=0.0), noise=0.0),
)}  # fmt: skip
"""All models by name, in the order of tables."""
