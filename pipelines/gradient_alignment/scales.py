"""What each scale of the study trains and measures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ebflow.errors import BadInput
from pipelines.config import ModelConfig, ObjectiveConfig, PreprocessConfig, TrainConfig, Training
from pipelines.config.recipes import mnist9k
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    ClassifierConfig,
    FlowConfig,
    MeasureConfig,
    NetConfig,
)
from pipelines.gradient_alignment.models import BASELINE, BLIND, MODELS, Model, control, penalized

JUDGE = 1000
"""Seed of the independently trained classifier, beyond the study's."""

NARROW = 64
"""Width of a judge of perceptrons, if it is one too."""

ALWAYS = (BASELINE, *BLIND.values())
"""What every number stands beside."""

IMAGES = (*ALWAYS, "score", "score-control", "centred", "centred-control", "gnorm", "anti",
          "paper-score", "paper-control", "paper-quiet", "fool-shift")  # fmt: skip


DENSE = Training(
    preprocess=PreprocessConfig(logit=None, shrinkage=0.1),
    model=ModelConfig(depth=2, activation="spline"),
    objective=ObjectiveConfig(name="lazy_ml"),
    train=TrainConfig(lr=4e-3, steps=1000, validate_every=50),
)
"""A flow of rows, which starts near the Gaussian of its rows."""

CONVOLUTIONAL = DENSE.changed(
    preprocess=PreprocessConfig(normalize="standardize", logit=None),
    model=mnist9k().model,
    anchor=mnist9k().anchor,
    train={"lr": 1e-2, "steps": 2000, "validate_every": 200},
)
"""A flow of images, as the recipe ``mnist9k`` has it."""


@dataclass(frozen=True)
class Scale:
    """How much a study does.

    Attributes:
        models: The names of its models.
        seeds: The number of trainings of each.
        classifier: A training without a regularizer.
        flow: How a flow is trained, the best by validation kept; one that sees the same draws of
            noise often learns them.
        classes: How that of a class goes on from the flow of all rows; None: it does not.
        measure: What is measured; of the baseline trace estimators too, which take exact Hessians.
        conditional: Whether there is a flow a class, of classes that are not too many.
        shared: Whether data and flows are those of the first seed for all, as flows cost too much.
    """

    models: tuple[str, ...]
    seeds: int
    classifier: ClassifierConfig
    flow: FlowConfig = FlowConfig(training=DENSE)
    classes: FlowConfig | None = None
    measure: MeasureConfig = MeasureConfig(estimators=True)
    conditional: bool = True
    shared: bool = False


SCALES: dict[str, Scale] = {
    "smoke": Scale(
        (*ALWAYS, "score", "fool-shift"),
        1,
        ClassifierConfig(epochs=3),
        FlowConfig(training=DENSE.changed(train={"steps": 60})),
        measure=MeasureConfig(points=100, samples=20, ascent=20, estimators=True),
        conditional=False,
    ),
    "cpu": Scale(tuple(MODELS), 6, ClassifierConfig(epochs=80)),
    "images": Scale(
        IMAGES,
        3,
        ClassifierConfig(net=NetConfig(name="cnn", hidden=16), epochs=2),
        FlowConfig(training=CONVOLUTIONAL, draws=2),
        FlowConfig(training=CONVOLUTIONAL.changed(
            train={"lr": 8e-3, "steps": 1000, "validate_every": 500}
        ), draws=8),
        measure=MeasureConfig(points=500, samples=100, ascent=200),
        shared=True,
    ),
    "full": Scale(
        (*IMAGES, "paper-anti"),
        3,
        ClassifierConfig(
            net=NetConfig(name="resnet18"), epochs=200, optimizer="sgd", lr=0.1,
            weight_decay=5e-4, schedule="steps", augment="cifar10", threads=4,
        ),
        FlowConfig(training=DENSE.changed(
            model=ModelConfig(depth=2, alpha=0.8),
            train={"steps": 40_000, "validate_every": 1000, "lr": 5e-4},
        ), draws=1),
        measure=MeasureConfig(),
        shared=True,
    ),
}  # fmt: skip


def models(config: AlignmentConfig) -> list[Model]:
    """Returns the models of the configuration's seed, the baseline first.

    Raises:
        BadInput: If one that is asked for is not known.
    """
    names = config.models or SCALES[config.scale].models
    for name in names:
        if name not in MODELS:
            raise BadInput(f"--models: found {name!r}, expected some of {', '.join(MODELS)}")
    known = [model for name, model in MODELS.items() if name in (*ALWAYS, *names)]
    others = _classifier(config)
    return [model.trained_as(others) for model in (*known, *_custom(config))]


def _custom(config: AlignmentConfig) -> Iterator[Model]:
    """Yields the model of the configuration's own regularizer, if any, and its control."""
    found, own = config.custom, config.custom.regularizer
    training = found.model_dump(include={"clip", "noise"}, exclude_none=True)
    if found.name != "none":
        yield penalized("custom", "a regularizer of one's own", own, **training)
    if found.name == "score":
        about = "gradient norm at custom's strength"
        yield penalized("custom-control", about, control(own), **training)


def replicates(config: AlignmentConfig) -> list[AlignmentConfig]:
    """Returns the study of each seed, with a split of its own unless data are shared."""
    scale = SCALES[config.scale]
    seeds = range(config.seed, config.seed + (config.seeds or scale.seeds))
    split = config.data.seed
    return [
        config.changed(seed=k, data={"seed": split + (config.seed if scale.shared else k)})
        for k in seeds
    ]


def _classifier(config: AlignmentConfig) -> ClassifierConfig:
    """Returns the training of the scale, without a regularizer."""
    found = SCALES[config.scale].classifier
    return found.changed(
        net=found.net if config.net in (None, found.net.name) else NetConfig(name=config.net),
        epochs=config.epochs or found.epochs,
        noise=config.noise,
        smoothing=config.noise,
        seed=config.seed,
        gpu=config.gpu,
    )


def judge(config: AlignmentConfig, shape: Sequence[int]) -> ClassifierConfig:
    """Returns the independently trained judge: a perceptron of networks for images.

    Of perceptrons it is a convolutional network, or a narrower one where examples are no images
    whose sides are multiples of 4.
    """
    found = _classifier(config)
    images = len(shape) in (2, 3) and all(side % 4 == 0 for side in shape[-2:])
    if found.net.name != "mlp":
        net = NetConfig()
    else:
        net = NetConfig(name="cnn", hidden=16) if images else NetConfig(hidden=NARROW)
    return found.changed(seed=JUDGE + config.seed, net=net)


def flow_config(config: AlignmentConfig, label: int | None = None) -> FlowConfig:
    """Returns the flow of a class; None: of all rows."""
    scale, asked = SCALES[config.scale], config.reference
    found = scale.flow if label is None else scale.classes or scale.flow
    steps = asked.steps or found.training.train.steps
    gpu = config.gpu and config.scale == "full"
    return found.changed(
        label=label,
        noise=config.noise,
        draws=asked.draws or found.draws,
        training={"seed": config.seed, "train": {"steps": steps}, "cluster": {"gpu": gpu}},
    )
