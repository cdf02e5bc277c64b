"""The classifiers of the study: what each scale trains, and the control of every claim."""

__all__ = [
    "BASELINE", "BLIND", "SCALES", "Model", "Scale", "control", "custom", "judge", "models",
    "quiet", "seeds", "training",
]  # fmt: skip

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ebflow.alignment.regularisers import PRESETS, disguise, equivalent_strength
from ebflow.errors import BadInput
from pipelines.config import (
    ClusterConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
    Training,
)
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    ClassifierConfig,
    MeasureConfig,
    NetConfig,
    RegulariserConfig,
    ShiftConfig,
)

BASELINE = "baseline"

BLIND = {"gaussian": "blind-gaussian", "flow": "blind-flow"}
"""The baseline with a class-blind density on every logit, by the shift's name: the gauge."""

JUDGE = 1000
"""Seed of the independently trained classifier."""

NAMES: dict[str, str] = {
    BASELINE: "cross-entropy alone",
    BLIND["gaussian"]: "the baseline and a class-blind Gaussian's log-density on every logit",
    BLIND["flow"]: "the baseline and a class-blind flow's log-density on every logit",
    "score": "score matching, recommended",
    "score-free": "the same without the stability penalty",
    "score-control": "gradient norm at score's strength",
    "centred": "score matching of the logit less the mean over classes",
    "centred-control": "gradient norm of that at the same strength",
    "gnorm": "gradient norm, recommended",
    "anti": "anti-score-matching, recommended",
    "paper-score": "score matching, paper",
    "paper-control": "gradient norm at paper-score's strength",
    "paper-quiet": "paper-score's mean by a quiet estimator",
    "paper-anti": "anti-score-matching, paper",
    "code-score": "score matching, official code",
    "code-control": "gradient norm at code-score's strength",
    "fool-shift": "the baseline and 100 t·x on every logit",
    "fool-quadratic": "the baseline and −50 ‖x − t‖² on every logit",
    "fool-sine": "the baseline and 50 sin(2π t·x) on every logit",
    "fool-weights": "a target gradient trained into the weights",
    "fool-ripple": "the baseline and a ripple on one logit",
    "collapse": "score matching without noise and penalty, λ = 1",
}
"""All models by name, and what they are."""

ALWAYS = (BASELINE, *BLIND.values())
"""What every number stands beside."""

IMAGES = (*ALWAYS, "score", "score-control", "centred", "centred-control", "gnorm", "anti",
          "paper-score", "paper-control", "paper-quiet", "paper-anti", "fool-shift")  # fmt: skip


LEARNED = ModelConfig(depth=2, activation="tanh")


@dataclass(frozen=True)
class Scale:
    """How much a study does.

    Attributes:
        models: The names of its models.
        seeds: The number of trainings of each.
        classifier: A training without a regulariser.
        steps: Of a reference flow.
        every: Steps between its validations.
        draws: Draws of noise a row for it.
        flow: Its architecture and its learning rate.
        measure: What is measured; of the baseline trace estimators too, which take exact Hessians.
        conditional: Whether there is a flow a class, of classes that are not too many.
    """

    models: tuple[str, ...]
    seeds: int
    classifier: ClassifierConfig
    steps: int
    every: int = 50
    draws: int = 16
    flow: tuple[ModelConfig, float] = (LEARNED, 4e-3)
    measure: MeasureConfig = MeasureConfig(estimators=True)
    conditional: bool = True


SCALES: dict[str, Scale] = {
    "smoke": Scale(
        (*ALWAYS, "score", "fool-shift"),
        1,
        ClassifierConfig(epochs=3),
        60,
        measure=MeasureConfig(points=100, samples=20, ascent=20, estimators=True),
        conditional=False,
    ),
    "cpu": Scale(tuple(NAMES), 6, ClassifierConfig(epochs=80), 1000),
    "images": Scale(
        IMAGES,
        3,
        ClassifierConfig(net=NetConfig(name="cnn", hidden=16), epochs=2),
        1500,
        every=250,
        draws=2,
        flow=(LEARNED, 1e-3),
        measure=MeasureConfig(points=500, samples=100, ascent=200),
    ),
    "full": Scale(
        IMAGES,
        3,
        ClassifierConfig(
            net=NetConfig(name="resnet18"), epochs=200, optimizer="sgd", lr=0.1,
            weight_decay=5e-4, schedule="steps", augment="cifar10", threads=4,
        ),
        40_000,
        every=1000,
        draws=1,
        flow=(ModelConfig(depth=2, alpha=0.8), 5e-4),
        measure=MeasureConfig(),
    ),
}  # fmt: skip

PREFIX = re.compile(r"^(paper|code)-")


@dataclass(frozen=True)
class Model:
    """A model of the study.

    Attributes:
        name: Its name.
        preset: The preset of its regulariser; empty of models that have none.
        classifier: What is trained, for seed 0.
        shift: What is added to its logits.
    """

    name: str
    preset: str
    classifier: ClassifierConfig
    shift: ShiftConfig = ShiftConfig()

    @property
    def about(self) -> str:
        """What it is."""
        return (NAMES | CUSTOM)[self.name]

    def seeded(self, seed: int) -> "Model":
        """Returns the model of another seed."""
        return replace(self, classifier=self.classifier.model_copy(update={"seed": seed}))


def models(config: AlignmentConfig) -> list[Model]:
    """Returns the models, the baseline first.

    Raises:
        BadInput: If one that is asked for is not known.
    """
    asked = config.models or SCALES[config.scale].models
    for name in asked:
        if name not in NAMES:
            raise BadInput(f"--models: found {name!r}, expected some of {', '.join(NAMES)}")
    named = [_model(name, config) for name in NAMES if name in (*ALWAYS, *asked)]
    return [*named, *custom(config)]


CUSTOM = {
    "custom": "a regulariser of one's own",
    "custom-control": "gradient norm at custom's strength",
}
"""The models that are there if the configuration has such a regulariser."""


def custom(config: AlignmentConfig) -> list[Model]:
    """Returns the model of the configuration's own regulariser, and its control; or none."""
    found = config.custom
    if found.name == "none":
        return []
    changed: dict[str, Any] = {"regulariser": found.regulariser, "clip": found.clip}
    if found.noise is not None:
        changed["noise"] = found.noise
    base = _classifier(config).model_copy(update=changed)
    mine = Model("custom", "", base)
    if found.name != "score":
        return [mine]
    matched = base.model_copy(update={"regulariser": control(found.regulariser)})
    return [mine, Model("custom-control", "", matched)]


def seeds(config: AlignmentConfig) -> int:
    """Returns the number of seeds."""
    return config.seeds or SCALES[config.scale].seeds


def _model(name: str, config: AlignmentConfig) -> Model:
    base = _classifier(config)
    if name in SHIFTED:
        return Model(name, "", base, SHIFTED[name])
    preset, regulariser = _regulariser(name)
    changed: dict[str, Any] = {"regulariser": regulariser}
    if name == "collapse":
        changed["noise"] = 0.0
    if preset == "recommended":
        changed["clip"] = 5.0 if regulariser.name == "score" else None
    return Model(name, preset, base.model_copy(update=changed))


SHIFTED = {
    **{name: ShiftConfig(name=shift) for shift, name in BLIND.items()},
    "fool-shift": ShiftConfig(name="linear", size=100.0),
    "fool-quadratic": ShiftConfig(name="quadratic", size=100.0),
    "fool-sine": ShiftConfig(name="sine", size=50.0),
    "fool-ripple": ShiftConfig(name="ripple", size=1000.0),
}


def _regulariser(name: str) -> tuple[str, RegulariserConfig]:
    """Returns the preset and the regulariser of a model."""
    if name in SPECIAL:
        return SPECIAL[name]
    preset = {"paper": "paper", "code": "official-code"}.get(name.split("-")[0], "recommended")
    kind = PREFIX.sub("", name)
    if kind in OF_SCORE:
        score = RegulariserConfig(name="score", **PRESETS[preset]["score"])
        return preset, OF_SCORE[kind](score)
    return preset, RegulariserConfig(name=kind, **PRESETS[preset][kind])


def control(score: RegulariserConfig) -> RegulariserConfig:
    """Returns the gradient-norm penalty of the same strength, the control of score matching."""
    weight = equivalent_strength(
        score.weight,
        estimator=score.estimator,
        stability=score.stability,
        slices=score.slices,
        step=score.step,
    )
    return RegulariserConfig(
        name="gnorm", weight=weight, warmup=score.warmup, centred=score.centred
    )


def quiet(score: RegulariserConfig) -> RegulariserConfig:
    """Returns the penalty with the mean of a one-sided ``score`` and hardly any of its noise."""
    excess = disguise(stability=score.stability, slices=score.slices, step=score.step)
    return score.model_copy(update={"estimator": "taylor_cv", "excess": excess})


OF_SCORE = {"control": control, "quiet": quiet}
"""Penalties that are derived from a preset's score matching."""


_RECOMMENDED: Mapping[str, Any] = PRESETS["recommended"]["score"]
_CENTRED = RegulariserConfig(name="score", centred=True, **_RECOMMENDED)

SPECIAL: dict[str, tuple[str, RegulariserConfig]] = {
    BASELINE: ("", RegulariserConfig()),
    "score-free": ("", RegulariserConfig(name="score", **{**_RECOMMENDED, "stability": 0.0})),
    "score-control": (
        "recommended",
        control(RegulariserConfig(name="score", **_RECOMMENDED)),
    ),
    "centred": ("recommended", _CENTRED),
    "centred-control": ("recommended", control(_CENTRED)),
    "fool-weights": ("", RegulariserConfig(name="fool", weight=1e-2)),
    "collapse": ("", RegulariserConfig(name="score", weight=1.0, stability=0.0)),
}


def _classifier(config: AlignmentConfig) -> ClassifierConfig:
    """Returns the training of the scale, without a regulariser."""
    found = SCALES[config.scale].classifier
    changed: dict[str, Any] = {
        "noise": config.noise, "smoothing": config.noise, "gpu": config.gpu,
        "epochs": config.epochs or found.epochs,
    }  # fmt: skip
    if config.net not in (None, found.net.name):
        changed["net"] = NetConfig(name=config.net)
    return found.model_copy(update=changed)


def judge(config: AlignmentConfig) -> ClassifierConfig:
    """Returns the independently trained classifier of the GAN-test."""
    return _classifier(config).model_copy(update={"seed": JUDGE})


def training(config: AlignmentConfig) -> Training:
    """Returns the training of a reference flow, on smoothed rows.

    It starts near the Gaussian of its rows; the best by validation is kept.
    """
    scale = SCALES[config.scale]
    model, rate = scale.flow
    return Training(
        preprocess=PreprocessConfig(logit=None, shrinkage=0.1),
        model=model,
        objective=ObjectiveConfig(name="lazy_ml"),
        train=TrainConfig(
            steps=config.reference.steps or scale.steps,
            batch_size=128,
            validate_every=scale.every,
            lr=rate,
        ),
        cluster=ClusterConfig(gpu=config.gpu and config.scale == "full"),
    )
