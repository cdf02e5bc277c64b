"""The configuration of pipelines, one file for each subject."""

from pipelines.config.data import ChainConfig, DataConfig, PreprocessConfig
from pipelines.config.model import ModelConfig
from pipelines.config.objective import (
    LEARNED_INVERSE,
    LIKELIHOOD,
    USERS,
    AnchorConfig,
    ObjectiveConfig,
    StabiliseConfig,
)
from pipelines.config.section import NAME, UNKEYED, Section, canonical
from pipelines.config.training import (
    ClusterConfig,
    DensityConfig,
    EvaluateConfig,
    TrainConfig,
    Training,
)
