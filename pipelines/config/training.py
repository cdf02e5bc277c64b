"""A whole training, its test, and the density pipeline around them."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from ebflow.errors import BadInput
from pipelines.config.data import ChainConfig, DataConfig, PreprocessConfig
from pipelines.config.model import ModelConfig
from pipelines.config.objective import (
    DIFFERENCES,
    LIKELIHOOD,
    AnchorConfig,
    ObjectiveConfig,
    StabiliseConfig,
)
from pipelines.config.section import NAME, UNKEYED, Section
from pipelines.config.train import ClusterConfig, TrainConfig

SLICED_WEIGHT = 0.01
GIB = 2**30


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
    def chain(self) -> ChainConfig:
        """What stands in front of the flow, as it is fitted."""
        train = self.train
        return ChainConfig(
            seed=self.seed,
            chain=self.preprocess,
            mixture=self.model.base == "mixture",
            dtype=train.dtype,
            threads=train.threads,
        )

    @property
    def objective_weight(self) -> float:
        """The factor of the objective; left open, what brings it to the size of the anchor.

        Denoising score matching is of the size D / σ²; with several noises its losses are weighed
        by σ² already. The sliced forms have the size of the squared score, which whitening makes
        D, and a heavy tail: 0.01 keeps it from the anchor.
        """
        objective = self.objective
        if objective.name in LIKELIHOOD:
            return 1.0
        if objective.weight is not None:
            return objective.weight
        if not self.anchor.weight or objective.levels > 1:
            return 1.0
        return objective.sigma**2 if objective.name == "dsm" else SLICED_WEIGHT

    @property
    def once(self) -> Self:
        """The same without a retry: for studies of which a divergence is a result."""
        return self.changed(train={"retry": False})

    @property
    def needs(self) -> dict[str, float]:
        """What its workers keep busy, all together."""
        return {kind: self.cluster.workers * n for kind, n in self.of_a_worker.items()}

    @property
    def of_a_worker(self) -> dict[str, float]:
        """What one of them does: the threads that compute, or that feed its GPU."""
        gpus, memory = int(self.cluster.gpu), self.cluster.memory * GIB
        needs = {"CPU": self.train.threads, "GPU": gpus, "memory": memory}
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
        anchored = self.anchor.weight
        if name not in LIKELIHOOD and not (self.objective_weight or anchored or biased):
            yield "objective.weight", "0 with no anchor", "above 0"
        if objective.every > 1 and not anchored:
            yield "objective.every", f"{objective.every} without an anchor", "1"
        if name == "relative_ml" and biased:
            found = "'relative_ml' with low_energy or latent_mean, which have other gradients"
            yield "objective.name", found, "another objective or neither"
        if name in DIFFERENCES and train.dtype != "float64" and train.precision != "highest":
            found = f"{train.precision} with {name}, which subtracts energies"
            yield "train.precision", found, "highest"
        if train.precision == "bfloat16" and train.dtype == "float64":
            yield "train.precision", "bfloat16 with float64, which is not cast", "highest"
        if train.batch_size % (cluster.workers * train.accumulate):
            times = f" × --train.accumulate = {train.accumulate}" if train.accumulate > 1 else ""
            multiple = f"a multiple of --cluster.workers = {cluster.workers}{times}"
            yield "train.batch_size", f"{train.batch_size}", multiple
        if train.accumulate > 1 and self.stabilise.latent_mean:
            found = f"{train.accumulate} with the latent mean of a whole batch"
            yield "train.accumulate", found, "1, or --stabilise.latent-mean 0"
        if cluster.split and cluster.workers == 1:
            yield "cluster.split", "True with one worker", "False"


class EvaluateConfig(Section):
    """The test."""

    draws: int = Field(1, ge=1, description="dequantization draws an example")
    importance_weighted: bool = Field(
        False, description="log-mean-exp over the draws (a tighter bound) instead of their mean"
    )
    batch_size: int = Field(
        1000, ge=1, description="examples at a time", json_schema_extra=UNKEYED
    )
    seed: int = Field(0, ge=0, description="seed of the draws")


class DensityConfig(Training):
    """The density pipeline: prepare, preprocess, train, evaluate, report."""

    name: str = Field(
        "density", pattern=NAME, description="name of the run", json_schema_extra=UNKEYED
    )
    data: DataConfig = DataConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @property
    def training(self) -> Training:
        """The part that the train stage depends on."""
        return Training(**{name: getattr(self, name) for name in Training.model_fields})
