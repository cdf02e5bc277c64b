"""What a pipeline can be told: one file a subject."""

__all__ = [
    "LEARNED_INVERSE",
    "LIKELIHOOD",
    "NAME",
    "UNKEYED",
    "USERS",
    "AnchorConfig",
    "ClusterConfig",
    "DataConfig",
    "DensityConfig",
    "DivergeConfig",
    "EvaluateConfig",
    "FrontConfig",
    "FillConfig",
    "ImputeConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PEERS",
    "PaperConfig",
    "PeerConfig",
    "PreprocessConfig",
    "Section",
    "StabiliseConfig",
    "StackConfig",
    "StepsConfig",
    "TrainConfig",
    "Training",
    "canonical",
]

from pipelines.config.data import DataConfig, FrontConfig, PreprocessConfig
from pipelines.config.evaluate import DivergeConfig, EvaluateConfig, FillConfig, ImputeConfig
from pipelines.config.model import ModelConfig
from pipelines.config.objective import (
    LEARNED_INVERSE,
    LIKELIHOOD,
    USERS,
    AnchorConfig,
    ObjectiveConfig,
    StabiliseConfig,
)
from pipelines.config.paper import PaperConfig, StackConfig, StepsConfig
from pipelines.config.peer import PEERS, PeerConfig
from pipelines.config.section import NAME, UNKEYED, Section, canonical
from pipelines.config.train import ClusterConfig, TrainConfig
from pipelines.config.training import DensityConfig, Training
