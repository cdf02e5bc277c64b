"""A whole training, its test, and the density pipeline around them."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

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
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        """Yields which options do not go with others, as ``name: found …, expected …``."""
        objective, train, cluster = self.objective, self.train, self.cluster
        name, biased = objective.name, self.stabilise.low_energy or self.stabilise.latent_mean
        anchored = self.anchor.weight
        if name not in LIKELIHOOD and not (self.objective_weight or anchored or biased):
            yield "objective.weight: found 0 with no anchor, expected above 0"
        if objective.every > 1 and not anchored:
            yield f"objective.every: found {objective.every} without an anchor, expected 1"
        if name == "relative_ml" and biased:
            yield (
                "objective.name: found 'relative_ml' with low_energy or latent_mean, whose "
                "gradients are not relative ones, expected another objective or neither"
            )
        if name in DIFFERENCES and train.dtype != "float64" and train.precision != "highest":
            yield (
                f"train.precision: found {train.precision} with {name}, which subtracts energies, "
                "expected highest"
            )
        if train.precision == "bfloat16" and train.dtype == "float64":
            yield (
                "train.precision: found bfloat16 with float64, which is not cast, expected highest"
            )
        if train.batch_size % (cluster.workers * train.accumulate):
            times = f" times train.accumulate = {train.accumulate}" if train.accumulate > 1 else ""
            yield (
                f"train.batch_size: found {train.batch_size}, "
                f"expected a multiple of cluster.workers = {cluster.workers}{times}"
            )
        if train.accumulate > 1 and self.stabilise.latent_mean:
            yield (
                f"train.accumulate: found {train.accumulate} with stabilise.latent_mean, "
                "which is of the whole batch, expected 1"
            )
        if cluster.split and cluster.workers == 1:
            yield "cluster.split: found True with one worker, expected False"


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
