"""Configuration of the gradient-alignment study and of each of its stages."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from pipelines.config import NAME, UNKEYED, DataConfig, Section, Training

Architecture = Literal["mlp", "cnn", "resnet9", "resnet18"]
Optimizer = Literal["adam", "sgd"]
RateSchedule = Literal["cosine", "steps"]
Augment = Literal["none", "crop", "crop-flip"]

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # Standard deviations of the noise of density ratios


class NetworkConfig(Section):
    """The architecture of a classifier, of :mod:`ebflow.alignment.classifiers`."""

    name: Architecture = "mlp"
    hidden: int | None = None  # width of the first layer; None: the architecture's


class RegularizerConfig(Section):
    """A term that is added to a classifier's cross-entropy.

    Options that a regularizer does not have are ignored.
    """

    name: Literal["none", "score", "anti", "gnorm", "fool"] = "none"
    """score: score matching by the true-class logit; anti: its opposite; gnorm: half the squared
    gradient; fool: the squared distance of the gradient from a chosen
    pattern (a face; stripes for rows that are no images)"""
    weight: float = Field(0.0, ge=0)
    """weight λ of the regularizer"""
    warmup: float = Field(0.0, ge=0, lt=1)
    """share of training during which λ rises from 0"""
    centred: bool = False
    """regularize the true class's logit less the mean over classes"""
    estimator: Literal["taylor", "taylor_cv"] = "taylor_cv"
    """estimator of the trace in score and anti: taylor, the paper's, or taylor_cv, which keeps the
    linear term and so has less noise"""
    directions: Literal["rademacher", "gaussian"] = "rademacher"
    """random directions of the estimator"""
    slices: int = Field(1, ge=1)
    """number K of directions (Taylor samples)"""
    step: float = Field(0.03, gt=0)
    """length σ of a difference, in units of the pixels"""
    stability: float = Field(1e-3, ge=0)
    """factor μ of the squared trace, in score"""
    floor: float | None = Field(None, gt=0)
    """lower bound of the trace in score, in units of −D / noise²; None: no bound"""
    ceiling: float = Field(1000.0, gt=0)
    """upper bound τ of the trace, in anti"""
    length: float = Field(10.0, gt=0)
    """length b of the gradient that fool trains into the weights"""

    def options(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Returns the options that are arguments of a function."""
        arguments = inspect.signature(function).parameters
        return {name: getattr(self, name) for name in arguments if hasattr(self, name)}


class ClassifierConfig(Section):
    """The training of a classifier on rows in [0, 1]."""

    seed: int = 0
    network: NetworkConfig = NetworkConfig()
    regularizer: RegularizerConfig = RegularizerConfig()
    epochs: int = 50
    batch_size: int = 128
    optimizer: Optimizer = "adam"
    lr: float = 2e-3  # the first rate
    weight_decay: float = 0.0
    schedule: RateSchedule = "cosine"
    augment: Augment = "none"
    noise: float = 0.1  # standard deviation of noise on rows, fresh at every step
    clip: float | None = None  # largest norm of the parameters' gradient
    smoothing: float = 0.1  # noise of the smoothed data, whose trace has a floor


class ClassifierOptions(Section):
    """The training of all classifiers. None: the scale's."""

    network: Architecture | None = None
    """architecture: mlp, a perceptron; cnn, two convolutions; resnet9 or resnet18, residual
    networks for images. All have the activation softplus with β = 10"""
    hidden: int | None = Field(None, ge=1)
    """width of the first layer; None: 256 (mlp), 32 (cnn) or 64 (resnet9, resnet18), or the
    scale's"""
    epochs: int | None = Field(None, ge=1)
    """passes over the training rows"""
    batch_size: int | None = Field(None, ge=1)
    """rows of a step"""
    optimizer: Optimizer | None = None
    """optimizer; sgd has a momentum of 0.9"""
    lr: float | None = Field(None, gt=0)
    """the first learning rate"""
    weight_decay: float | None = Field(None, ge=0)
    """weight decay"""
    schedule: RateSchedule | None = None
    """learning rate over time; steps: a tenth after 1/2 and again after 3/4 of the epochs"""
    augment: Augment | None = None
    """random changes of training images; crop: one of the image with 4 black pixels around it;
    crop-flip: half of these mirrored too, as in the paper"""
    clip: float | None = Field(None, gt=0)
    """largest norm of the parameters' gradient, of every model; None: each model's own, which is 5
    for score matching as recommended; the others are not clipped"""


class CustomConfig(RegularizerConfig):
    """A regularizer of your own: the study has the model custom if it has a name.

    Beside score matching it has custom-control too, the gradient norm at its strength.
    """

    noise: float | None = Field(None, ge=0)
    """noise of the training of custom alone; None: that of the study"""
    clip: float | None = Field(None, gt=0)
    """largest norm of the parameters' gradient of custom alone; None: no clipping"""

    @property
    def regularizer(self) -> RegularizerConfig:
        """The regularizer alone."""
        return RegularizerConfig(**{k: getattr(self, k) for k in RegularizerConfig.model_fields})


class FlowConfig(Section):
    """The training of a flow of rows in [0, 1], smoothed by noise."""

    label: int | None = None  # class of the rows; None: all rows
    noise: float = 0.1  # standard deviation
    copies: int = 16  # copies of each row, each with noise of its own
    training: Training = Training()


# A function that is added to the logits of a trained classifier. It is the log-density of a class-
# blind ``gaussian`` or ``flow``, or one of :mod:`ebflow.alignment.fooling` with a pattern t.
# A ``ripple`` differs from logit to logit; the others add the same to each.
Shift = Literal["none", "gaussian", "flow", "linear", "quadratic", "sine", "ripple"]


class MeasureConfig(Section):
    """The measurements of a classifier at noisy test points."""

    noise: float = 0.1  # of the points, and of the reference
    shift: Shift = "none"
    points: int = 1000  # the most test points
    samples: int = 200  # pictures of activity maximization
    ascent: int = 500  # steps of each
    brief: bool = False  # only accuracies and alignment
    rate: float = 0.1  # rate of the ascent
    seed: int = 0


class SweepConfig(Section):
    """A search of the settings of score matching. None: the scale's, or none with --models.

    Each cell is a model, beside score and paper-score. Validation rows choose one, which is
    compared with the paper's setting on test rows.
    """

    kind: Literal["star", "grid"] = "star"
    """star: change one setting of the recommended model at a time; grid: all combinations"""
    weights: tuple[float, ...] | None = None
    """weights λ of score matching"""
    stabilities: tuple[float, ...] | None = None
    """factors μ of the squared trace"""
    steps: tuple[float, ...] | None = None
    """lengths σ of a difference"""
    noises: tuple[float, ...] | None = None
    """standard deviations of the noise of training; the data are smoothed by --noise as always"""


class MeasureOptions(Section):
    """The sizes of the measurements. None: the scale's."""

    points: int | None = Field(None, ge=8)
    """test rows at most"""
    samples: int | None = Field(None, ge=1)
    """pictures of activity maximization, of a model"""
    ascent: int | None = Field(None, ge=1)
    """steps of each"""


class ReferenceConfig(Section):
    """The flows whose scores are the reference."""

    kind: Literal["flows", "none"] = "flows"
    """flows: a flow of each class, and one of all rows; none: only measurements without a
    reference, for rows of thousands of values, of which flows are expensive"""
    copies: int = Field(16, ge=1)
    """noisy copies of a row for their training"""


class AlignmentConfig(Section):
    """The gradient-alignment study: prepare, flow, reference, classify, measure, align."""

    scale: Literal["smoke", "cpu", "full"] = "cpu"
    """smoke: a few models, seconds each; cpu: all models, less than 15 minutes on two cores; full:
    the paper's ResNet-18, trained as long as there, for big machines"""
    name: str = Field("alignment", pattern=NAME, json_schema_extra=UNKEYED)
    """name of the run"""
    data: DataConfig = DataConfig(label="label")
    noise: float = Field(0.1, gt=0)
    """noise that smooths the data in training, reference and test"""
    seed: int = Field(0, ge=0)
    """the first seed; each seed has its own split, flows, points, judge and classifiers"""
    seeds: int | None = Field(None, ge=1)
    """number of seeds; None: 6 at scale cpu, 3 at full, 1 at smoke"""
    models: tuple[str, ...] | None = Field(None, min_length=1)
    """only these models, and the baseline with and without class-blind densities; None: the
    scale's"""
    classifier: ClassifierOptions = ClassifierOptions()
    custom: CustomConfig = CustomConfig()
    sweep: SweepConfig = SweepConfig()
    measure: MeasureOptions = MeasureOptions()
    reference: ReferenceConfig = ReferenceConfig()
