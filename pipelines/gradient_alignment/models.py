"""The classifiers of the study: what each scale trains, and the control of every claim."""

__all__ = [
    "BASELINE", "Model", "control", "custom", "judge", "models", "quiet", "seeds", "training",
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
    NetConfig,
    RegulariserConfig,
    ShiftConfig,
)

BASELINE = "baseline"

JUDGE = 1000
"""Seed of the independently trained classifier."""

NAMES: dict[str, str] = {
    BASELINE: "cross-entropy alone",
    "score": "score matching, recommended",
    "score-free": "the same without the stability penalty",
    "score-control": "gradient norm at score's strength",
    "gnorm": "gradient norm, recommended",
    "anti": "anti-score-matching, recommended",
    "paper-score": "score matching, paper",
    "paper-control": "gradient norm at paper-score's strength",
    "paper-quiet": "paper-score's mean by a quiet estimator",
    "paper-anti": "anti-score-matching, paper",
    "paper-gnorm": "gradient norm, paper",
    "code-score": "score matching, official code",
    "code-control": "gradient norm at code-score's strength",
    "code-anti": "anti-score-matching, official code",
    "code-gnorm": "gradient norm, official code",
    "fool-shift": "the baseline and 100 t·x on every logit",
    "fool-quadratic": "the baseline and −50 ‖x − t‖² on every logit",
    "fool-sine": "the baseline and 50 sin(2π t·x) on every logit",
    "fool-weights": "a target gradient trained into the weights",
    "fool-ripple": "the baseline and a ripple on one logit",
    "collapse": "score matching without noise and penalty, λ = 1",
}
"""All models by name, and what they are."""

SCALES: dict[str, tuple[str, ...]] = {
    "smoke": (BASELINE, "score", "fool-shift"),
    "cpu": tuple(NAMES),
    "full": (BASELINE, "score", "score-control", "anti", "paper-score", "paper-control",
             "paper-quiet", "paper-anti", "paper-gnorm", "fool-shift"),
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
    asked = config.models or SCALES[config.scale]
    for name in asked:
        if name not in NAMES:
            raise BadInput(f"--models: found {name!r}, expected some of {', '.join(NAMES)}")
    named = [_model(name, config) for name in NAMES if name in (BASELINE, *asked)]
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
    return config.seeds or {"smoke": 1, "cpu": 3, "full": 3}[config.scale]


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
    return RegulariserConfig(name="gnorm", weight=weight, warmup=score.warmup)


def quiet(score: RegulariserConfig) -> RegulariserConfig:
    """Returns the penalty with the mean of a one-sided ``score`` and hardly any of its noise."""
    excess = disguise(stability=score.stability, slices=score.slices, step=score.step)
    return score.model_copy(update={"estimator": "taylor_cv", "excess": excess})


OF_SCORE = {"control": control, "quiet": quiet}
"""Penalties that are derived from a preset's score matching."""


_RECOMMENDED: Mapping[str, Any] = PRESETS["recommended"]["score"]

SPECIAL: dict[str, tuple[str, RegulariserConfig]] = {
    BASELINE: ("", RegulariserConfig()),
    "score-free": ("", RegulariserConfig(name="score", **{**_RECOMMENDED, "stability": 0.0})),
    "score-control": (
        "recommended",
        control(RegulariserConfig(name="score", **_RECOMMENDED)),
    ),
    "fool-weights": ("", RegulariserConfig(name="fool", weight=1e-2)),
    "collapse": ("", RegulariserConfig(name="score", weight=1.0, stability=0.0)),
}


def _classifier(config: AlignmentConfig) -> ClassifierConfig:
    """Returns the training of the scale, without a regulariser."""
    shared = {"noise": config.noise, "smoothing": config.noise, "gpu": config.gpu}
    net = NetConfig(name=config.net or ("resnet18" if config.scale == "full" else "mlp"))
    if config.scale == "full":
        return ClassifierConfig(
            net=net, epochs=config.epochs or 200, optimizer="sgd", lr=0.1, weight_decay=5e-4,
            schedule="steps", augment="cifar10", threads=4, **shared,
        )  # fmt: skip
    epochs = {"smoke": 3, "cpu": 80}[config.scale]
    return ClassifierConfig(net=net, epochs=config.epochs or epochs, **shared)


def judge(config: AlignmentConfig) -> ClassifierConfig:
    """Returns the independently trained classifier of the GAN-test."""
    return _classifier(config).model_copy(update={"seed": JUDGE})


STEPS = {"smoke": 60, "cpu": 500, "full": 40_000}
"""Steps of a flow."""


def training(config: AlignmentConfig) -> Training:
    """Returns the training of a reference flow, on smoothed rows.

    It starts near the Gaussian of its class, of which a hundred rows can hardly take it further:
    the best by validation is kept.
    """
    full = config.scale == "full"
    return Training(
        preprocess=PreprocessConfig(logit=None, shrinkage=0.1),
        model=ModelConfig(depth=2, alpha=0.8),
        objective=ObjectiveConfig(name="lazy_ml"),
        train=TrainConfig(
            steps=config.reference.steps or STEPS[config.scale],
            batch_size=128,
            validate_every=1000 if full else 50,
            lr=5e-4,
        ),
        cluster=ClusterConfig(gpu=config.gpu and full),
    )
