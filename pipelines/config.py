"""What a pipeline can be told: frozen models, one section a subject.

Field documentation is what ``--help`` shows. A field marked :data:`UNKEYED` changes no number, so
it is no part of the key by which a finished stage is found again.
"""

__all__ = [
    "LIKELIHOOD",
    "NAME",
    "USERS",
    "AnchorConfig",
    "ClusterConfig",
    "DataConfig",
    "DensityConfig",
    "DivergeConfig",
    "EvaluateConfig",
    "ImputeConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PaperConfig",
    "PreprocessConfig",
    "Section",
    "StabiliseConfig",
    "StepsConfig",
    "TrainConfig",
    "Training",
    "canonical",
]

import json
from typing import Annotated, Any, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.weights import open_weight

UNKEYED = {"keyed": False}

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
"""What a run may be called: files and folders are."""

LIKELIHOOD = ("ml", "lazy_ml", "relative_ml", "sml")
"""The objectives that are a likelihood; all others match scores, and may have an anchor."""

DIFFERENCES = ("fd_ssm", "taylor_sm")
"""The objectives that subtract energies of near points."""

USERS: dict[str, tuple[str, ...]] = {
    "sigma": ("dsm",),
    "sigma_end": ("dsm",),
    "levels": ("dsm",),
    "antithetic": ("dsm",),
    "epsilon": ("fd_ssm",),
    "slices": ("ssm", "ssm_vr", "taylor_sm"),
    "directions": ("ssm", "ssm_vr", "taylor_sm"),
    "estimator": ("taylor_sm",),
    "step": ("taylor_sm",),
    "weight": ("dsm", "exact_sm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm"),
    "every": ("dsm", "exact_sm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm"),
}
"""Which objectives use an option of an objective; for any other it stays at its default."""

Size = int | float
"""A split's size: a number of rows (a whole number) or a share of all rows (between 0 and 1)."""


class Section(BaseModel):
    """Frozen; an unknown key is an error; no infinities, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Which data, and how its rows are split."""

    source: str = Field(
        "digits",
        min_length=1,
        description="name of a data set (`ebflow data list`), a .parquet file, a folder of them, "
        "or one of PNG or JPEG images of one size",
        json_schema_extra=UNKEYED,
    )
    validation: Size | None = Field(
        None, gt=0, description="validation rows, or their share if below 1; None: the source's"
    )
    test: Size | None = Field(
        None, gt=0, description="test rows, or their share if below 1; None: the source's"
    )
    selection: Size | None = Field(
        None,
        gt=0,
        description="rows held out of all three, or their share if below 1, on which a search "
        "names its winner; None: none (`ebflow tune`: as many as for validation)",
    )
    rows: int | None = Field(None, ge=3, description="use only that many rows; None: all")
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="columns to use; None: all that can be used"
    )
    label: str | None = Field(
        None,
        min_length=1,
        description="column of integer classes, kept beside the data; None: none",
    )
    seed: int = Field(0, ge=0, description="seed of the split")


class PreprocessConfig(Section):
    """Fixed bijections in front of the flow, fitted on the training split."""

    normalise: Literal["none", "standardise", "whiten"] = Field(
        "whiten", description="map the training data to zero mean and unit (co)variance"
    )
    logit: float | None = Field(
        1e-6, gt=0, lt=0.5, description="margin of the logit of integer data; None: no logit"
    )
    scale: float = Field(1.0, gt=0, description="divisor of the logit")
    shrinkage: float = Field(
        0.0, ge=0, lt=1, description="share of the identity in the correlations that are whitened"
    )
    match_after: bool = Field(
        True, description="match scores after preprocessing (else in raw data units)"
    )
    extended: bool = Field(
        False,
        description="continue the logit linearly outside the range of the data, where noise may "
        "move points that are matched before preprocessing; the density then has mass there",
    )


class ModelConfig(Section):
    """The flow. What is None is the architecture's own, or the recipe's for it."""

    architecture: Literal["dense", "convolutional", "glow", "planar", "multimodal"] = Field(
        "dense",
        description="named architecture: dense for rows, convolutional and glow for images, "
        "planar and multimodal (couplings; masked layers) for few dimensions",
    )
    depth: int | None = Field(
        None, ge=1, le=64, description="linear layers (dense), or layers of a block or level"
    )
    alpha: float | None = Field(
        None, gt=0, lt=1, description="slope of the smooth leaky ReLU below 0"
    )
    residual: bool | None = Field(None, description="smooth leaky ReLU in its residual form")
    sign: Literal[-1, 1] | None = Field(None, description="linear layers start as ± the identity")
    bias: float | None = Field(None, description="start of every offset")
    noise: float | None = Field(
        None, ge=0, description="noise on the identity at the start, over √D"
    )
    calibrated: bool | None = Field(
        None, description="scale later layers so that whitened data start near the Gaussian"
    )
    kernel_size: int | None = Field(None, ge=1, description="odd side of a convolution's kernel")
    padding: Literal["zero", "circular", "masked"] | None = Field(
        None, description="padding of convolutions, each with its exact log-determinant"
    )
    blocks: int | None = Field(None, ge=1, description="image sizes of convolutional")
    levels: int | None = Field(None, ge=1, description="image sizes of glow")
    spectral_norm: bool | None = Field(None, description="convolutions of spectral norm 1")
    hidden: int | None = Field(None, ge=1, description="width of the couplings' networks")
    activation: Literal["swish", "elu", "leaky_relu"] | None = Field(
        None, description="of the couplings' networks"
    )
    shift_activation: Literal["swish", "elu", "leaky_relu"] | None = Field(
        None, description="of planar's networks for shifts; None: that of the others"
    )
    bound: float | None = Field(
        None, gt=0, description="bound of the log-scales of planar's couplings; None: free"
    )
    norm: Literal["spectral", "weight"] | None = Field(
        None, description="planar's dense layers: of spectral norm 1, or rows of trained lengths"
    )
    bins: int | None = Field(None, ge=2, description="bins of spline couplings; None: affine ones")
    structure: Literal["full", "tril", "triu", "trilu"] | None = Field(
        None, description="mask of multimodal's linear layers"
    )


class ObjectiveConfig(Section):
    """What a step minimises, besides the anchor."""

    name: Literal[
        "ml", "lazy_ml", "relative_ml", "sml",
        "dsm", "exact_sm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm",
    ] = Field("dsm", description="objective")  # fmt: skip
    sigma: float = Field(0.3, gt=0, description="noise of dsm, in units of the matched data")
    sigma_end: float | None = Field(
        None,
        gt=0,
        description="noise of dsm at the end of training, geometrically from sigma, or of the "
        "last of several levels; None: sigma throughout",
    )
    levels: int = Field(
        1,
        ge=1,
        description="noise levels of dsm from sigma to sigma-end, of which every example draws "
        "one (losses weighed by the squared noise); 1: the same noise for all",
    )
    antithetic: bool = Field(
        False, description="dsm at noises of both signs: less variance, twice the cost"
    )
    epsilon: float = Field(0.1, gt=0, description="step of fd_ssm, in units of the matched data")
    slices: int = Field(
        1, ge=1, description="random directions an example of ssm, ssm_vr, taylor_sm"
    )
    directions: Literal["rademacher", "gaussian", "sphere", "orthogonal"] = Field(
        "rademacher", description="law of these directions"
    )
    estimator: Literal["taylor", "taylor_cv", "two_sided"] = Field(
        "taylor_cv",
        description="trace of taylor_sm: one-sided, with its control variate, or two-sided",
    )
    step: float = Field(
        0.03, gt=0, description="step of taylor_sm, in units of the matched data, times √D in norm"
    )
    weight: float | None = Field(
        None,
        ge=0,
        description="factor of score matching; None: 1 where there is no anchor; beside one, σ² "
        "for dsm (its size is D / σ²), 1 with several levels, 0.01 for the others",
    )
    every: int = Field(
        1,
        ge=1,
        description="match scores in every n-th step; the others are the anchor's alone, and as "
        "cheap as lazy_ml's",
    )

    @classmethod
    def of(cls, name: str, **options: Any) -> "ObjectiveConfig":  # noqa: ANN401
        """Returns the objective of that name with those of the ``options`` that it uses."""
        return cls(name=name, **{key: options[key] for key in options if name in USERS[key]})

    def kept_by(self, name: str) -> "ObjectiveConfig":
        """Returns this with all that another objective does not use at its default."""
        unused = [option for option, users in USERS.items() if name not in users]
        fields = type(self).model_fields
        return self.model_copy(update={option: fields[option].default for option in unused})

    @property
    def options(self) -> dict[str, Any]:
        """The options that this objective uses."""
        return {name: getattr(self, name) for name, users in USERS.items() if self.name in users}

    @model_validator(mode="after")
    def _what_is_set_is_used(self) -> "ObjectiveConfig":
        default = self.kept_by(self.name)
        for name, users in USERS.items():
            found, expected = getattr(self, name), getattr(default, name)
            if found != expected:
                raise ValueError(
                    f"{name}: found {found}, which {self.name} does not use, expected {expected} "
                    f"(its default; it is for {', '.join(users)})"
                )
        return self

    @model_validator(mode="after")
    def _a_ladder_has_two_ends(self) -> "ObjectiveConfig":
        if self.levels > 1 and self.sigma_end is None:
            raise ValueError(
                f"sigma_end: found None with {self.levels} levels, expected the noise of the last"
            )
        return self


class AnchorConfig(Section):
    """The likelihood gradient with a lazily refreshed normaliser, beside score matching.

    For lazy_ml the rule of refreshing holds, and not the weight; the other likelihood objectives
    need no anchor.
    """

    weight: float = Field(
        1.0, ge=0, description="factor of the anchor beside score matching; 0: none"
    )
    clean: bool = Field(False, description="take the anchor of dsm at the data without noise")
    interval: int = Field(100, ge=1, description="steps between refreshes at most")
    tolerance: float | None = Field(
        0.1, gt=0, description="drift that brings a refresh forward (share); None: interval alone"
    )
    check_every: int = Field(5, ge=1, description="steps between probes of the drift")


class StabiliseConfig(Section):
    """Further remedies against what score matching cannot see."""

    low_energy: float = Field(0.0, ge=0, description="factor of the mean energy (biased)")
    latent_mean: float = Field(0.0, ge=0, description="factor of the squared latent mean")
    finish: float = Field(
        0.0, ge=0, le=1, description="share of the training, at its end, by exact ML"
    )


class TrainConfig(Section):
    """The optimisation."""

    steps: int = Field(6000, ge=1, description="optimiser steps at most")
    max_seconds: float | None = Field(
        None, gt=0, description="training time at most, s (validation and start-up not counted)"
    )
    batch_size: int = Field(128, ge=1, description="examples a step, over all workers")
    accumulate: int = Field(
        1,
        ge=1,
        description="parts of a worker's examples, one after another: less memory, the same step "
        "up to rounding",
    )
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = Field("adam", description="optimiser")
    lr: float = Field(2e-3, gt=0, description="learning rate")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    schedule: Literal["constant", "cosine", "multistep"] = Field(
        "cosine", description="learning rate over time"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of linear warm-up at the start")
    milestones: int = Field(2, ge=1, description="of multistep: how often the rate falls")
    gamma: float = Field(0.1, gt=0, le=1, description="of multistep: factor at each fall")
    until: float = Field(1.0, gt=0, le=1, description="of multistep: share by which all fell")
    augment: Literal["none", "flip", "cifar10", "stl10"] = Field(
        "none",
        description="random changes of training images: mirrored (flip), or also shifted as the "
        "paper does for CIFAR-10 or STL-10",
    )
    noise: float = Field(
        0.0,
        ge=0,
        description="standard deviation of noise on every training row, in raw units and fresh "
        "at every step: what is learnt is the density smoothed by it (likelihoods are of rows "
        "without)",
    )
    clip: float | None = Field(None, gt=0, description="gradient norm at most; None: no clipping")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay of the average of the weights")
    validate_every: int = Field(250, ge=1, description="steps between validations")
    patience: int | None = Field(
        None, ge=1, description="stop after that many validations without improvement; None: never"
    )
    log_every: int = Field(50, ge=1, description="steps between logged metrics")
    dtype: Literal["float32", "float64"] = Field("float32", description="number format")
    precision: Literal["highest", "high", "medium", "bfloat16"] = Field(
        "highest",
        description="matrix products inside a step: highest (float32), high (TF32 on GPUs), "
        "medium (bfloat16 where that is faster, results float32), bfloat16 (by autocast, results "
        "bfloat16 too: mixed precision); likelihoods are always of the highest",
    )
    threads: int = Field(1, ge=1, description="threads a worker")


class ClusterConfig(Section):
    """Where the training runs."""

    workers: Annotated[int, tyro.conf.arg(aliases=["--workers"])] = Field(
        1, ge=1, description="data-parallel training processes"
    )
    gpu: bool = Field(False, description="a GPU for every worker")
    split: bool = Field(
        False,
        description="split weights, gradients and optimiser state among the workers (FSDP) "
        "instead of copying them, for flows too large for one",
    )
    max_failures: int = Field(
        2, ge=0, description="restarts after a dead worker", json_schema_extra=UNKEYED
    )
    patience: float = Field(
        1800.0,
        gt=0,
        description="seconds without a log event or a validation after which a worker counts as "
        "hung and dead",
        json_schema_extra=UNKEYED,
    )


class EvaluateConfig(Section):
    """The test."""

    draws: int = Field(1, ge=1, description="dequantisation draws an example")
    importance_weighted: bool = Field(
        False, description="log-mean-exp over the draws (a tighter bound) instead of their mean"
    )
    batch_size: int = Field(
        1000, ge=1, description="examples at a time", json_schema_extra=UNKEYED
    )
    seed: int = Field(0, ge=0, description="seed of the draws")


class DivergeConfig(Section):
    """How a flow differs from an exact density in the plane."""

    density: Literal["sine", "swirl", "checkerboard"] = Field(
        "sine", description="density, smoothed by sigma"
    )
    sigma: float = Field(0.375, gt=0, description="noise, in the units of the data")
    samples: int = Field(10_000, ge=2, description="fresh points of the density")
    seed: int = Field(0, ge=0, description="seed of the points")
    extent: float = Field(9.0, gt=0, description="half the side of the pictures")
    resolution: int = Field(120, ge=2, description="pixels a side of the pictures")


class StepsConfig(Section):
    """Steps of every objective on one net, timed."""

    net: Literal["FC", "CNN"] = Field("FC", description="two dense layers, or six convolutions")
    channels: int = Field(1, ge=1, description="channels of the images")
    side: int = Field(28, ge=4, multiple_of=4, description="height and width of the images")
    batch: int = Field(100, ge=2, description="examples a step")
    seconds: float = Field(1.0, gt=0, description="least time given to an objective, s")
    threads: int = Field(2, ge=1, description="threads of a step")


class ImputeConfig(Section):
    """Imputation of missing pixels of test images, by the flow's paper's chain and Langevin's."""

    images: int = Field(32, ge=1, description="test images at most")
    mask: Literal["strokes", "half", "square"] = Field(
        "strokes",
        description="missing pixels: strokes of handwritten digits, the lower half, or a square "
        "in the middle",
    )
    draws: int = Field(2, ge=1, description="chains an image, of each sampler")
    steps: int = Field(500, ge=1, description="steps of a chain")
    step: float = Field(
        1.0,
        gt=0,
        lt=2,
        description="step of Langevin's diffusion, over the inverse of the largest curvature of "
        "-log p (no unit; stable below 2)",
    )
    momentum: float = Field(
        0.95,
        ge=0,
        lt=1,
        description="share of the velocity that a step keeps in Langevin's with momentum",
    )
    h: float = Field(
        0.5,
        gt=0,
        description="h of the paper's chain, in units of the scaled logits; lowered to "
        "where its drift is stable",
    )
    snr: float = Field(0.1, ge=0, description="size of the paper's noise (no unit)")
    smoothing: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="weight of the blurred image in a step of the paper's chain; lowered with h "
        "squared",
    )
    shrinkage: float = Field(
        1e-3,
        ge=0,
        lt=1,
        description="share of the identity in the correlations of the Gaussian beside the flow",
    )
    seed: int = Field(0, ge=0, description="seed of masks and chains")
    threads: int = Field(2, ge=1, description="threads", json_schema_extra=UNKEYED)


class FrontConfig(Section):
    """What the fitted chain in front of a flow depends on, besides the data."""

    seed: int = Field(0, ge=0, description="seed of the dequantisation noise of the fit")
    chain: PreprocessConfig = PreprocessConfig()
    dtype: Literal["float32", "float64"] = Field("float32", description="type of its use")
    threads: int = Field(1, ge=1, description="CPU threads of the fit")

    @property
    def needs(self) -> dict[str, int]:
        """The CPU cores that its fit keeps busy."""
        return {"CPU": self.threads}


class Training(Section):
    """All that a training run depends on, besides its data."""

    seed: int = Field(0, ge=0, description="seed of weights, batches and noise")
    preprocess: PreprocessConfig = PreprocessConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    anchor: AnchorConfig = AnchorConfig()
    stabilise: StabiliseConfig = StabiliseConfig()
    train: TrainConfig = TrainConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def front(self) -> FrontConfig:
        """What stands in front of the flow, as it is fitted."""
        train = self.train
        return FrontConfig(
            seed=self.seed, chain=self.preprocess, dtype=train.dtype, threads=train.threads
        )

    @property
    def objective_weight(self) -> float:
        """The factor of the objective, also where it is left open."""
        objective = self.objective
        if objective.name in LIKELIHOOD:
            return 1.0
        if objective.weight is not None:
            return objective.weight
        anchored = self.anchor.weight > 0
        return open_weight(
            objective.name, sigma=objective.sigma, levels=objective.levels, anchored=anchored
        )

    @property
    def needs(self) -> dict[str, int]:
        """The GPUs, or else the CPU cores, that its workers keep busy."""
        workers = self.cluster.workers
        return {"GPU": workers} if self.cluster.gpu else {"CPU": workers * self.train.threads}

    @model_validator(mode="after")
    def _something_is_minimised(self) -> "Training":
        matching = self.objective.name not in LIKELIHOOD
        weights = (self.objective_weight, self.anchor.weight, self.stabilise.low_energy)
        if matching and not any((*weights, self.stabilise.latent_mean)):
            raise ValueError("objective.weight: found 0 with no anchor, expected above 0")
        return self

    @model_validator(mode="after")
    def _an_anchor_fills_the_steps_between(self) -> "Training":
        if self.objective.every > 1 and not self.anchor.weight:
            raise ValueError(
                f"objective.every: found {self.objective.every} without an anchor, expected 1"
            )
        return self

    @model_validator(mode="after")
    def _relative_gradients_are_alone(self) -> "Training":
        added = (self.stabilise.low_energy, self.stabilise.latent_mean)
        if self.objective.name == "relative_ml" and any(added):
            raise ValueError(
                "objective.name: found 'relative_ml' with low_energy or latent_mean, whose "
                "gradients are not relative ones, expected another objective or neither"
            )
        return self

    @model_validator(mode="after")
    def _differences_have_digits(self) -> "Training":
        name, train = self.objective.name, self.train
        exact = train.dtype == "float64" or train.precision == "highest"
        if name in DIFFERENCES and not exact:
            raise ValueError(
                f"train.precision: found {train.precision} with {name}, which subtracts energies, "
                "expected highest"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_cast(self) -> "Training":
        if self.train.precision == "bfloat16" and self.train.dtype == "float64":
            raise ValueError(
                "train.precision: found bfloat16 with float64, which is not cast, expected highest"
            )
        return self

    @model_validator(mode="after")
    def _batch_is_shared_evenly(self) -> "Training":
        workers, parts = self.cluster.workers, self.train.accumulate
        if self.train.batch_size % (workers * parts):
            times = f" times train.accumulate = {parts}" if parts > 1 else ""
            raise ValueError(
                f"train.batch_size: found {self.train.batch_size}, "
                f"expected a multiple of cluster.workers = {workers}{times}"
            )
        return self

    @model_validator(mode="after")
    def _parts_have_the_mean_of_the_whole(self) -> "Training":
        if self.train.accumulate > 1 and self.stabilise.latent_mean:
            raise ValueError(
                f"train.accumulate: found {self.train.accumulate} with stabilise.latent_mean, "
                "which is of the whole batch, expected 1"
            )
        return self

    @model_validator(mode="after")
    def _there_are_workers_to_split_among(self) -> "Training":
        if self.cluster.split and self.cluster.workers == 1:
            raise ValueError("cluster.split: found True with one worker, expected False")
        return self


class DensityConfig(Training):
    """The density pipeline: prepare, preprocess, train, evaluate, report."""

    name: str = Field(
        "density",
        pattern=NAME,
        description="name of the run",
        json_schema_extra=UNKEYED,
    )
    data: DataConfig = DataConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @property
    def training(self) -> Training:
        """The part that the train stage depends on."""
        return Training(**{name: getattr(self, name) for name in Training.model_fields})


class PaperConfig(Section):
    """An experiment of the paper, at a scale."""

    experiment: Literal[
        "table", "toy", "ablation", "runtime", "matrices", "glow", "imputation"
    ] = Field(
        "table",
        description="table: NLL by net and objective; toy: divergences from three densities in "
        "the plane; ablation: EMA and MaP; runtime: step times against D; matrices: full and "
        "triangular ones in ten dimensions; glow: likelihood and samples of Glow; imputation: "
        "missing pixels of photographs",
    )
    scale: Literal["smoke", "cpu", "full"] = Field(
        "cpu",
        description="a training's length: 60 steps; some seconds, so that the experiment ends "
        "in less than 20 minutes on two cores; or the paper's, on GPUs",
    )
    name: str | None = Field(
        None,
        pattern=NAME,
        description="name of the run; None: the experiment's",
        json_schema_extra=UNKEYED,
    )
    source: str | None = Field(
        None,
        min_length=1,
        description="images in place of the paper's: a data set (`ebflow data list`), a .parquet "
        "file or a folder",
        json_schema_extra=UNKEYED,
    )
    images: Literal["grey", "colour"] = Field(
        "grey", description="half of the table: MNIST's settings and numbers, or CIFAR-10's"
    )
    seconds: float | None = Field(
        None, gt=0, description="training seconds of a cell at scale cpu; None: the experiment's"
    )
    rows: int | None = Field(None, ge=3, description="use only that many rows; None: all")
    validation: Size | None = Field(
        None, gt=0, description="validation rows, or their share if below 1; None: the source's"
    )
    test: Size | None = Field(
        None, gt=0, description="test rows, or their share if below 1; None: the source's"
    )
    seeds: int = Field(1, ge=1, description="seeds, from 0 on")
    threads: int = Field(2, ge=1, description="threads of a training on images")
    cluster: ClusterConfig = ClusterConfig()


def canonical(section: Section) -> str:
    """Returns canonical JSON of what decides the numbers: the keyed fields, sorted."""
    return json.dumps(_keyed(section), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _keyed(value: object) -> object:
    if not isinstance(value, Section):
        return value
    fields = type(value).model_fields.items()
    keyed = [name for name, field in fields if field.json_schema_extra != UNKEYED]
    return {name: _keyed(getattr(value, name)) for name in keyed}
