"""What the study of gradient alignment, and each of its stages, can be told."""

import inspect
from typing import Any, Literal

from pydantic import Field, model_validator

from pipelines.config import NAME, UNKEYED, DataConfig, Section, Training


class NetConfig(Section):
    """A classifier."""

    name: Literal["mlp", "cnn", "resnet18"] = Field("mlp", description="its architecture")
    hidden: int | None = Field(
        None, ge=1, description="width of its first layer; None: 256, 32 or 64 by architecture"
    )


class RegulariserConfig(Section):
    """What is added to a classifier's cross-entropy."""

    name: Literal["none", "score", "anti", "gnorm", "fool"] = Field(
        "none",
        description="score: score matching on the true-class logit; anti: its opposite; gnorm: "
        "half the squared gradient; fool: a target gradient",
    )
    weight: float = Field(0.0, ge=0, description="factor, lambda")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of training over which it rises")
    estimator: Literal["taylor", "taylor_cv", "two_sided", "hutchinson", "exact"] = Field(
        "taylor_cv", description="of the trace, of score and anti"
    )
    directions: Literal["rademacher", "gaussian", "sphere", "orthogonal"] = Field(
        "rademacher", description="law of the estimator's directions"
    )
    slices: int = Field(1, ge=1, description="their number")
    step: float = Field(0.03, gt=0, description="step of differences, in units of the pixels")
    stability: float = Field(1e-3, ge=0, description="factor of score's squared trace, mu")
    floor: float | None = Field(
        None, gt=0, description="least trace that score counts, in -D / noise²; None: any"
    )
    centred: bool = Field(
        False, description="score, anti and gnorm of the true class's logit less the mean of all"
    )
    excess: float = Field(
        0.0, ge=0, description="factor of half the squared gradient, beside that of score"
    )
    ceiling: float = Field(1000.0, gt=0, description="largest trace that anti counts, tau")
    size: float = Field(10.0, gt=0, description="length of fool's target gradient")

    def options(self, function: Any) -> dict[str, Any]:  # noqa: ANN401
        """Returns those of its options that are arguments of a function."""
        known = inspect.signature(function).parameters
        return {name: getattr(self, name) for name in known if hasattr(self, name)}


class Computing(Section):
    """What computes in a stage of its own."""

    threads: int = Field(1, ge=1, description="threads")
    gpu: bool = Field(False, description="compute on a GPU")

    @property
    def needs(self) -> dict[str, float]:
        """What it keeps busy."""
        return {"CPU": self.threads, **({"GPU": 1} if self.gpu else {})}

    @property
    def device(self) -> str:
        """Where tensors are."""
        return "cuda" if self.gpu else "cpu"


class ClassifierConfig(Computing):
    """All that the training of a classifier depends on, besides its data."""

    seed: int = Field(0, ge=0, description="seed of weights, batches, noise and directions")
    net: NetConfig = NetConfig()
    regularizer: RegulariserConfig = RegulariserConfig()
    epochs: int = Field(50, ge=1, description="passes over the training rows")
    batch_size: int = Field(128, ge=1, description="rows of a step")
    optimizer: Literal["adam", "sgd"] = Field(
        "adam", description="optimizer; sgd has momentum 0.9"
    )
    lr: float = Field(2e-3, gt=0, description="learning rate")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    schedule: Literal["cosine", "steps"] = Field(
        "cosine", description="learning rate over time; steps: a tenth at 1/2 and at 3/4"
    )
    noise: float = Field(
        0.1, ge=0, description="standard deviation of noise on rows in [0, 1], fresh at every step"
    )
    augment: Literal["none", "flip", "cifar10"] = Field(
        "none", description="random changes of training images before the noise"
    )
    clip: float | None = Field(None, gt=0, description="gradient norm at most; None: no clipping")
    smoothing: float = Field(
        0.1, gt=0, description="noise whose floor a trace must not pass, as the study measures it"
    )


class FlowConfig(Section):
    """A flow of the data of one class, smoothed by noise."""

    label: int | None = Field(None, ge=0, description="class; None: all")
    noise: float = Field(0.1, gt=0, description="standard deviation, of rows in [0, 1]")
    draws: int = Field(16, ge=1, description="draws of noise a row")
    training: Training = Training()

    @property
    def needs(self) -> dict[str, float]:
        """What the training keeps busy."""
        return self.training.needs


class ReferenceConfig(Section):
    """The flows whose scores are the reference."""

    conditional: bool | None = Field(
        None,
        description="a flow a class; False: one for all, which gives A2 alone; None: a class each "
        "of 20 at most, one for all at scale smoke",
    )
    draws: int | None = Field(
        None, ge=1, description="draws of noise a row for their training; None: the scale's"
    )
    steps: int | None = Field(None, ge=1, description="steps of a flow; None: the scale's")


class CustomConfig(RegulariserConfig):
    """A regularizer of one's own, such as a search found, with its noise and clipping.

    If it has a name, the study has the model custom, and beside score matching custom-control, the
    gradient norm at its strength.
    """

    noise: float | None = Field(
        None, ge=0, description="noise of its training; None: as of the others"
    )
    clip: float | None = Field(None, gt=0, description="gradient norm at most; None: no clipping")

    @property
    def regularizer(self) -> RegulariserConfig:
        """The regularizer alone."""
        return RegulariserConfig(**self.model_dump(include=set(RegulariserConfig.model_fields)))


class ShiftConfig(Section):
    """What is added to a trained classifier's logits."""

    name: Literal["none", "gaussian", "flow", "linear", "quadratic", "sine", "ripple"] = Field(
        "none",
        description="a shift of all logits, by the log-density of a class-blind Gaussian or flow "
        "or by a pattern, or a ripple of one",
    )
    size: float = Field(100.0, gt=0, description="factor of a pattern")


class MeasureConfig(Computing):
    """What is measured of a classifier, at noisy test points."""

    noise: float = Field(0.1, gt=0, description="noise of the points, as of the reference")
    shift: ShiftConfig = ShiftConfig()
    points: int = Field(1000, ge=2, description="test points at most")
    samples: int = Field(200, ge=2, description="pictures of activity maximization")
    ascent: int = Field(500, ge=1, description="steps of each")
    rate: float = Field(0.1, gt=0, description="rate of the ascent")
    estimators: bool = Field(False, description="measure the trace estimators as well")
    seed: int = Field(0, ge=0, description="seed of noise, samples and controls")
    threads: int = Field(1, ge=1, description="threads", json_schema_extra=UNKEYED)


class AlignmentConfig(Section):
    """The study of gradient alignment: prepare, reference, classify, measure, report."""

    scale: Literal["smoke", "cpu", "images", "full"] = Field(
        "cpu",
        description="smoke: seconds a training, a few models; cpu: a perceptron, all models, less "
        "than 15 minutes on two cores; images: a small convolutional network, for 28×28 images; "
        "full: ResNet-18 and the paper's training, on GPUs",
    )
    name: str = Field(
        "alignment", pattern=NAME, description="name of the run", json_schema_extra=UNKEYED
    )
    data: DataConfig = DataConfig(label="label")
    noise: float = Field(
        0.1, gt=0, description="noise that smooths the data: of training, reference and test"
    )
    seed: int = Field(
        0,
        ge=0,
        description="the first seed: of a split of the rows (and --data.seed more), references, "
        "points, judge and classifiers; of images and full split and references are its alone",
    )
    seeds: int | None = Field(
        None, ge=1, description="seeds, one after another; None: 6 of cpu, 1 of smoke, 3 of others"
    )
    models: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="only these models, and the baseline with and without class-blind densities; "
        "None: the scale's",
    )
    net: Literal["mlp", "cnn", "resnet18"] | None = Field(
        None, description="classifier; None: mlp, cnn at scale images, resnet18 at full"
    )
    epochs: int | None = Field(None, ge=1, description="of a classifier; None: the scale's")
    reference: ReferenceConfig = ReferenceConfig()
    custom: CustomConfig = CustomConfig()
    gpu: bool = Field(False, description="a GPU for every training")

    @model_validator(mode="after")
    def _a_regularizer_of_ones_own_is_whole(self) -> "AlignmentConfig":
        found = self.custom
        if found.name != "none" and not found.weight:
            raise ValueError("custom.weight: found 0, which adds nothing, expected more")
        if found.name == "none" and found != CustomConfig():
            raise ValueError(
                "custom.name: found none beside other options of it, expected score, anti, gnorm "
                "or fool"
            )
        return self
