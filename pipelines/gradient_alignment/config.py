"""Configuration of the gradient-alignment study and of each of its stages."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from pipelines.config import NAME, UNKEYED, DataConfig, Section, Training

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # Standard deviations of the noise of density ratios


class NetworkConfig(Section):
    """The architecture of a classifier."""

    name: Literal["mlp", "cnn"] = "mlp"
    hidden: int = 256  # width of the first layer


class RegularizerConfig(Section):
    """A term that is added to a classifier's cross-entropy.

    ``score`` matches scores by the true-class logit, ``anti`` does the opposite, ``gnorm`` is half
    the squared gradient. Options that a regularizer does not have are ignored.
    """

    name: Literal["none", "score", "anti", "gnorm"] = "none"
    weight: float = 0.0  # λ
    warmup: float = 0.0  # share of training during which λ rises from 0
    centred: bool = False  # regularize the true class's logit less the mean over classes
    estimator: Literal["taylor", "taylor_cv"] = "taylor_cv"  # of the trace
    directions: Literal["rademacher", "gaussian"] = "rademacher"  # of the estimator
    slices: int = 1  # number of directions
    step: float = 0.03  # of differences, in units of the pixels
    stability: float = 1e-3  # factor μ of the squared trace, in score
    floor: float | None = None  # lower bound of the trace in score, in units of −D / noise²
    ceiling: float = 1000.0  # upper bound τ of the trace, in anti

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
    lr: float = 2e-3  # the first rate of Adam; it falls as a cosine
    noise: float = 0.1  # standard deviation of noise on rows, fresh at every step
    clip: float | None = None  # largest norm of the parameters' gradient
    smoothing: float = 0.1  # noise of the smoothed data, whose trace has a floor


class FlowConfig(Section):
    """The training of a flow of rows in [0, 1], smoothed by noise."""

    label: int | None = None  # class of the rows; None: all rows
    noise: float = 0.1  # standard deviation
    copies: int = 16  # copies of each row, each with noise of its own
    training: Training = Training()


# A function that is added to the logits of a trained classifier. It is the log-density of a class-
# blind ``gaussian`` or ``flow``, or 100 times a ``pattern``.
Shift = Literal["none", "gaussian", "flow", "pattern"]


class MeasureConfig(Section):
    """The measurements of a classifier at noisy test points."""

    noise: float = 0.1  # of the points, and of the reference
    shift: Shift = "none"
    points: int = 1000  # the most test points
    samples: int = 200  # pictures of activity maximization
    ascent: int = 500  # steps of each
    rate: float = 0.1  # rate of the ascent
    seed: int = 0


class ReferenceConfig(Section):
    """The flows whose scores are the reference."""

    copies: int = Field(16, ge=1)
    """noisy copies of a row for their training"""


class AlignmentConfig(Section):
    """The gradient-alignment study: prepare, flow, reference, classify, measure, align."""

    scale: Literal["smoke", "cpu"] = "cpu"
    """smoke: a few models, seconds each; cpu: all models, less than 15 minutes on two cores"""
    name: str = Field("alignment", pattern=NAME, json_schema_extra=UNKEYED)
    """name of the run"""
    data: DataConfig = DataConfig(label="label")
    noise: float = Field(0.1, gt=0)
    """noise that smooths the data in training, reference and test"""
    seed: int = Field(0, ge=0)
    """the first seed; each seed has its own split, flows, points, judge and classifiers"""
    seeds: int | None = Field(None, ge=1)
    """number of seeds; None: 6 at scale cpu, 1 at smoke"""
    models: tuple[str, ...] | None = Field(None, min_length=1)
    """only these models, and the baseline with and without class-blind densities; None: the
    scale's"""
    reference: ReferenceConfig = ReferenceConfig()
