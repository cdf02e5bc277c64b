"""The options of a training, of its test, and of the density pipeline around them."""

import math
import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import tyro
from pydantic import Field, model_validator

from ebflow.errors import BadInput
from ebflow.recipes import LIKELIHOOD
from pipelines.config.data import DataConfig, PreprocessConfig, PreprocessFit
from pipelines.config.model import AnyModel, Dense
from pipelines.config.objective import (
    AnchorConfig,
    AnyObjective,
    Dsm,
    FdSsm,
    LearnedInverse,
    ScoreMatching,
    StabiliseConfig,  # fmt: skip
    TaylorSm,
)
from pipelines.config.section import NAME, UNKEYED, Section

WORKERS = re.compile(r"[1-9]\d*(:[1-9]\d*)?")


class TrainConfig(Section):
    """The optimization."""

    steps: int = Field(6000, ge=1)
    """optimizer steps at most"""
    max_seconds: float | None = Field(None, gt=0)
    """training time at most, s (validation and start-up not counted)"""
    batch_size: int = Field(128, ge=1)
    """examples a step, over all workers"""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """optimizer"""
    lr: float = Field(2e-3, gt=0)
    """learning rate"""
    weight_decay: float = Field(0.0, ge=0)
    """weight decay; of adamw: of the networks inside layers only"""
    schedule: Literal["constant", "cosine", "multistep"] = "cosine"
    """learning rate over time"""
    warmup: float = Field(0.05, ge=0, lt=1)
    """share of linear warm-up at the start"""
    milestones: int = Field(2, ge=1)
    """of multistep: number of falls of the rate"""
    gamma: float = Field(0.1, gt=0, le=1)
    """of multistep: factor at each fall"""
    epoch: int = Field(1000, ge=1)
    """of multistep: steps from one fall to the next, however long the training is"""
    augment: Literal["none", "flip", "cifar10"] = "none"
    """random changes of training images: mirrored (flip), or also shifted as the paper does for
    CIFAR-10"""
    noise: float = Field(0.0, ge=0)
    """standard deviation of noise on every training row, in raw units and fresh at every step:
    the flow learns the density smoothed by it (likelihoods are of rows without noise)"""
    smoothing: float = Field(0.0, ge=0)
    """standard deviation of noise on preprocessed rows at the start, against over-fitting of few
    rows; it falls to 0, and spares only categories with exact probabilities"""
    clip: float | None = Field(None, gt=0)
    """gradient norm at most; None: no clipping"""
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """decay of the average of the weights"""
    validate_every: int = Field(250, ge=1)
    """steps between validations; before the first, also 16, 32, 64 …"""
    patience: int | None = Field(None, ge=1)
    """stop after that many validations without improvement; None: never"""
    retry: bool = True
    """if a loss or a likelihood is not finite, resume from the best validation with a quarter of
    the learning rate, and stop at the best one if it happens again; else the run fails"""
    log_every: int = Field(50, ge=1)
    """steps between logged metrics"""
    dtype: Literal["float32", "float64"] = "float32"
    """number format"""
    precision: Literal["highest", "high", "medium", "bfloat16"] = "highest"
    """matrix products inside a step: highest (float32), high (TF32 on GPUs), medium (bfloat16
    where that is faster, results float32), bfloat16 (by autocast, results bfloat16 too: mixed
    precision); likelihoods are always of the highest"""
    threads: int = Field(1, ge=1)
    """threads a worker"""


class ClusterConfig(Section):
    """The workers of a training."""

    workers: Annotated[int | str, tyro.conf.arg(aliases=["--workers"], metavar="N|MIN:MAX")] = 1
    """data-parallel training processes; 1:4: as many as fit on the nodes; they may come and go"""
    shards: int | None = Field(None, ge=0)
    """parts of a batch whose gradients are summed in a fixed order: the weights are equal to the
    bit for any number of workers; 0: all-reduce; None: MAX of MIN:MAX workers, else 0"""
    gpu: float = Field(0.0, ge=0, le=1)
    """GPUs of every worker: 1, or a share, as 0.25, if four trainings fit one GPU"""
    accelerator_type: str | None = Field(None, json_schema_extra=UNKEYED)
    """type of the GPUs of a cluster, as A10G or H100; None: any"""
    memory: float = Field(0.0, ge=0, json_schema_extra=UNKEYED)
    """GiB of a cluster node that every worker reserves; 0: only the CPUs of a node limit its
    workers"""
    max_failures: int = Field(2, ge=0, json_schema_extra=UNKEYED)
    """restarts of workers that Ray Train launched, without a new checkpoint between; lost nodes
    do not count; if a single worker on this machine dies, --retries applies"""
    patience: float = Field(1800.0, gt=0, json_schema_extra=UNKEYED)
    """seconds without a step or a batch of a validation after which a worker counts as hung"""

    @model_validator(mode="after")
    def _is_a_number_or_a_range(self) -> Self:
        if not WORKERS.fullmatch(str(self.workers)) or self.limits[0] > self.limits[1]:
            expected = "a whole number from 1 on, or MIN:MAX, as 1:4"
            raise BadInput(option="workers", found=repr(self.workers), expected=expected)
        if 0 < self.shard_count < self.limits[1]:
            expected = f"at least {self.limits[1]}, the most --cluster.workers"
            raise BadInput(option="shards", found=self.shard_count, expected=expected)
        return self

    @property
    def elastic(self) -> bool:
        """True if the number of workers follows the cluster's nodes."""
        return ":" in str(self.workers)

    @property
    def limits(self) -> tuple[int, int]:
        """The fewest and the most workers."""
        numbers = str(self.workers).split(":")
        return int(numbers[0]), int(numbers[-1])

    @property
    def shard_count(self) -> int:
        """Shards of a batch; 0: there are none."""
        return self.limits[1] * self.elastic if self.shards is None else self.shards


class Training(Section):
    """All that a training run depends on, besides its data."""

    seed: int = Field(0, ge=0)
    """seed of weights, batches and noise"""
    preprocess: PreprocessConfig = PreprocessConfig()
    model: AnyModel = Dense()
    objective: AnyObjective = Dsm()
    anchor: AnchorConfig = AnchorConfig()
    stabilise: StabiliseConfig = StabiliseConfig()
    train: TrainConfig = TrainConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def preprocess_fit(self) -> PreprocessFit:
        """The configuration of the preprocessing that is fitted before the training."""
        train, model = self.train, self.model
        likelihood = self.objective.name in LIKELIHOOD
        return PreprocessFit(
            seed=self.seed,
            options=self.preprocess,
            mixture=model.base == "mixture",
            exact=model.exact_categories and likelihood,
            pixels=model.architecture == "pixelcnn" and likelihood,
            dtype=train.dtype,
            threads=train.threads,
        )

    @property
    def method(self) -> str:
        """The loss and the architecture, as ``dsm σ 0.3 + anchor on dense``."""
        base = " above a mixture of Gaussians" if self.model.base == "mixture" else ""
        return f"{self.short_loss} on {self.model.architecture}{base}"

    @property
    def smoothing(self) -> tuple[float, float] | None:
        """The standard deviations of the noise in the density that the flow learns.

        They are those on raw rows and on preprocessed ones; None: not all steps have the same
        target.
        """
        objective = self.objective
        if not isinstance(objective, Dsm) or objective.weight == 0:
            return self.train.noise, 0.0
        if objective.every > 1 or self.stabilise.finish:
            return None
        return self.train.noise, objective.sigma_end or objective.sigma

    @property
    def short_loss(self) -> str:
        """The objective, its noise and the anchor beside it, as ``dsm σ 0.3 + anchor``."""
        objective = self.objective
        noise = f" σ {objective.sigma:.3g}" if isinstance(objective, Dsm) else ""
        if noise and objective.sigma_end is not None:
            noise += f" … {objective.sigma_end:.3g}"
        anchored = isinstance(objective, ScoreMatching) and self.anchor.weight
        return objective.name + noise + (" + anchor" if anchored else "")

    @property
    def without_retry(self) -> Self:
        """The same training without a retry: for studies of which a divergence is a result."""
        return self.changed(train={"retry": False})

    @property
    def needs(self) -> dict[str, float]:
        """The resources that all workers need together."""
        return {kind: self.cluster.limits[1] * n for kind, n in self.of_a_worker.items()}

    @property
    def of_a_worker(self) -> dict[str, float]:
        """The resources of a worker: its threads compute, or feed its GPU."""
        cluster = self.cluster
        needs = {"CPU": self.train.threads, "GPU": cluster.gpu, "memory": cluster.memory * 2**30}
        if cluster.accelerator_type:  # Ray gives a node 1 of this resource
            needs[f"accelerator_type:{cluster.accelerator_type}"] = 0.001
        return {kind: amount for kind, amount in needs.items() if amount}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for option, found, expected in self._problems():
            raise BadInput(option=option, found=found, expected=expected)
        return self

    def _problems(self) -> Iterator[tuple[str, str, str]]:
        """Yields options that do not suit others: name, what was found, what was expected."""
        objective, train, cluster = self.objective, self.train, self.cluster
        name, biased = objective.name, self.stabilise.low_energy or self.stabilise.latent_mean
        anchored, matching = self.anchor.weight, isinstance(objective, ScoreMatching)
        if matching and objective.weight == 0 and not (anchored or biased):
            yield "objective.weight", "0 with no anchor", "above 0"
        if matching and objective.every > 1 and not anchored:
            yield "objective.every", f"{objective.every} without an anchor", "1"
        inverses = isinstance(objective, LearnedInverse)
        if (inverses or name == "relative_ml") and biased:
            found = f"{name!r} with low_energy or latent_mean, which have other gradients"
            yield "objective.name", found, "another objective or neither"
        if inverses and getattr(self.model, "linear", None) != "learned_inverse":
            found = f"{self.model.architecture} without learned inverses, with {name}"
            yield "model.linear", found, "learned_inverse of the architecture dense"
        pixels = self.model.architecture == "pixelcnn"
        if pixels and self.model.base != "normal":
            yield "model.base", f"{self.model.base} with pixelcnn", "normal"
        if matching and pixels:
            found = f"pixelcnn with {name}: its probabilities of integers have no score"
            yield "model.architecture", found, "another, or a likelihood as the objective"
        subtracts = isinstance(objective, FdSsm | TaylorSm)
        if subtracts and train.dtype != "float64" and train.precision != "highest":
            found = f"{train.precision} with {name}, which subtracts energies"
            yield "train.precision", found, "highest"
        if train.precision == "bfloat16" and train.dtype == "float64":
            yield "train.precision", "bfloat16 with float64, which is not cast", "highest"
        count, (fewest, most) = cluster.shard_count, cluster.limits
        if count and self.stabilise.latent_mean:
            yield "cluster.shards", f"{count} with a mean over the batch, latent_mean", "0"
        if count > train.batch_size:
            yield "cluster.shards", f"{count}", f"at most {train.batch_size} rows"
        if not count and train.batch_size % math.lcm(*range(fewest, most + 1)):
            multiple = f"a multiple of --cluster.workers = {cluster.workers}"
            yield "train.batch_size", f"{train.batch_size}", multiple


class EvaluateConfig(Section):
    """The test."""

    samples: int = Field(1, ge=1)
    """dequantization samples per example"""
    importance_weighted: bool = False
    """average the samples as densities, not as log-densities: a bound of the log-probability of
    integers that gets tighter with more samples"""
    batch_size: int = Field(1000, ge=1, json_schema_extra=UNKEYED)
    """examples at a time"""
    seed: int = Field(0, ge=0)
    """seed of these samples"""


class DensityConfig(Training):
    """The density pipeline: prepare, preprocess, train, evaluate, report."""

    name: str = Field("density", pattern=NAME, json_schema_extra=UNKEYED)
    """name of the run"""
    data: DataConfig = DataConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    rival: Literal["wide"] | None = None
    """recipe of a second flow, which is trained beside this one: the better by validation is
    evaluated"""

    def _problems(self) -> Iterator[tuple[str, str, str]]:
        yield from super()._problems()
        if self.evaluate.importance_weighted and self.evaluate.samples == 1:
            yield "evaluate.samples", "1 with importance_weighted", "2 or more"

    @property
    def training(self) -> Training:
        """The part that the train stage depends on."""
        return Training(**{name: getattr(self, name) for name in Training.model_fields})
