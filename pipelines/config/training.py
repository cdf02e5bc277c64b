"""A whole training, and the density pipeline around it."""

__all__ = ["DensityConfig", "Training"]

from typing import Self

from pydantic import Field, model_validator

from pipelines.config.data import DataConfig, FrontConfig, PreprocessConfig
from pipelines.config.evaluate import EvaluateConfig
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
from pipelines.config.weights import open_weight


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
            seed=self.seed,
            chain=self.preprocess,
            mixture=self.model.base == "mixture",
            dtype=train.dtype,
            threads=train.threads,
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
    def once(self) -> Self:
        """The same without a retry: for studies of which a divergence is a result."""
        return self.model_copy(update={"train": self.train.model_copy(update={"retry": False})})

    @property
    def needs(self) -> dict[str, float]:
        """What its workers keep busy, all together."""
        return {kind: self.cluster.workers * n for kind, n in self.of_a_worker.items()}

    @property
    def of_a_worker(self) -> dict[str, float]:
        """What one of them does: the threads that compute, or that feed its GPU."""
        return {"CPU": self.train.threads, **({"GPU": 1} if self.cluster.gpu else {})}

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
