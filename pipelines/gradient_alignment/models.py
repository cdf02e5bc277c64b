"""The classifiers of the study, and the control of every claim."""

from dataclasses import dataclass
from typing import Any

from ebflow.alignment.regularisers import PRESETS, disguise, equivalent_strength
from pipelines.gradient_alignment.config import ClassifierConfig, RegulariserConfig, ShiftConfig

BASELINE = "baseline"

BLIND = {"gaussian": "blind-gaussian", "flow": "blind-flow"}
"""The baseline with a class-blind density on every logit, by the shift's name: the gauge."""


def control(score: RegulariserConfig) -> RegulariserConfig:
    """Returns the gradient-norm penalty of the same strength, the control of score matching."""
    weight = equivalent_strength(
        score.weight, estimator=score.estimator, stability=score.stability, slices=score.slices,
        step=score.step,
    )  # fmt: skip
    return RegulariserConfig(
        name="gnorm", weight=weight, warmup=score.warmup, centred=score.centred
    )


def quiet(score: RegulariserConfig) -> RegulariserConfig:
    """Returns the penalty with the mean of a one-sided ``score`` and hardly any of its noise."""
    excess = disguise(stability=score.stability, slices=score.slices, step=score.step)
    return score.model_copy(update={"estimator": "taylor_cv", "excess": excess})


def penalised(penalty: RegulariserConfig) -> tuple[str, bool]:
    """Returns what a regulariser penalises, and whether of the centred logit.

    Score matching that has more of a gradient-norm penalty hidden in it than of its own is one.
    """
    strength = control(penalty).weight + penalty.excess * penalty.weight
    disguised = penalty.name == "score" and strength > 2 * penalty.weight
    return "gnorm" if disguised else penalty.name, penalty.centred


@dataclass(frozen=True)
class Model:
    """A model of the study.

    Attributes:
        name: Its name.
        about: What it is.
        preset: Whose settings its regulariser has; empty if nobody's.
        classifier: What is trained.
        shift: What is added to its logits.
    """

    name: str
    about: str
    preset: str
    classifier: ClassifierConfig
    shift: ShiftConfig


@dataclass(frozen=True)
class Declared:
    """What a model is, besides the training of its scale.

    Attributes:
        about: The same for a person.
        regulariser: Of its training.
        preset: Whose settings the regulariser has; empty if nobody's.
        clip: Norm at most of a gradient of its training; None: any.
        noise: Of its training; None: as of the others.
        shift: What is added to its logits.
    """

    about: str
    regulariser: RegulariserConfig = RegulariserConfig()
    preset: str = ""
    clip: float | None = None
    noise: float | None = None
    shift: ShiftConfig = ShiftConfig()

    def model(self, name: str, base: ClassifierConfig) -> Model:
        """Returns the model, from a training without a regulariser."""
        changes: dict[str, Any] = {"regulariser": self.regulariser, "clip": self.clip}
        if self.noise is not None:
            changes["noise"] = self.noise
        return Model(name, self.about, self.preset, base.model_copy(update=changes), self.shift)


def _preset(preset: str, name: str, **changed: Any) -> RegulariserConfig:  # noqa: ANN401
    return RegulariserConfig(name=name, **{**PRESETS[preset][name], **changed})


def _shifted(about: str, name: str, size: float = 100.0) -> Declared:
    return Declared(f"the baseline and {about}", shift=ShiftConfig(name=name, size=size))


RECOMMENDED, PAPER, CODE = "recommended", "paper", "official-code"
SCORE = {preset: _preset(preset, "score") for preset in PRESETS}
CENTRED = _preset(RECOMMENDED, "score", centred=True)
CLIP = 5.0

MODELS: dict[str, Declared] = {
    BASELINE: Declared("cross-entropy alone"),
    BLIND["gaussian"]: _shifted("a class-blind Gaussian's log-density on every logit", "gaussian"),
    BLIND["flow"]: _shifted("a class-blind flow's log-density on every logit", "flow"),
    "score": Declared("score matching, recommended", SCORE[RECOMMENDED], RECOMMENDED, CLIP),
    "score-free": Declared("the same without the stability penalty",
                           _preset(RECOMMENDED, "score", stability=0.0), clip=CLIP),
    "score-control": Declared("gradient norm at score's strength", control(SCORE[RECOMMENDED]),
                              RECOMMENDED, CLIP),
    "centred": Declared("score matching of the logit less the mean over classes", CENTRED,
                        RECOMMENDED, CLIP),
    "centred-control": Declared("gradient norm of that at the same strength", control(CENTRED),
                                RECOMMENDED, CLIP),
    "gnorm": Declared("gradient norm, recommended", _preset(RECOMMENDED, "gnorm"), RECOMMENDED),
    "anti": Declared("anti-score-matching, recommended", _preset(RECOMMENDED, "anti"),
                     RECOMMENDED),
    "paper-score": Declared("score matching, paper", SCORE[PAPER], PAPER),
    "paper-control": Declared("gradient norm at paper-score's strength", control(SCORE[PAPER]),
                              PAPER),
    "paper-quiet": Declared("paper-score's mean by a quiet estimator", quiet(SCORE[PAPER]), PAPER),
    "paper-anti": Declared("anti-score-matching, paper", _preset(PAPER, "anti"), PAPER),
    "code-score": Declared("score matching, official code", SCORE[CODE], CODE),
    "code-control": Declared("gradient norm at code-score's strength", control(SCORE[CODE]), CODE),
    "fool-shift": _shifted("100 t·x on every logit", "linear", 100.0),
    "fool-quadratic": _shifted("−50 ‖x − t‖² on every logit", "quadratic", 100.0),
    "fool-sine": _shifted("50 sin(2π t·x) on every logit", "sine", 50.0),
    "fool-weights": Declared("a target gradient trained into the weights",
                             RegulariserConfig(name="fool", weight=1e-2)),
    "fool-ripple": _shifted("a ripple on one logit", "ripple", 1000.0),
    "collapse": Declared("score matching without noise and penalty, λ = 1",
                         RegulariserConfig(name="score", weight=1.0, stability=0.0), noise=0.0),
}  # fmt: skip
"""All models by name, in the order of tables."""
