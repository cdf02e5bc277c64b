"""The configuration of pipelines, one file for each subject."""

from pipelines.config.data import DataConfig, PreprocessConfig, PreprocessFit
from pipelines.config.model import (
    Autoregressive,
    Convolutional,
    Coupling,
    Dense,
    Glow,
    Model,
    Structured,
)
from pipelines.config.objective import (
    AnchorConfig,
    Dsm,
    FdSsm,
    Likelihood,
    Objective,
    ScoreMatching,
    Ssm,
    StabiliseConfig,
    TaylorSm,
)
from pipelines.config.section import NAME, UNKEYED, Section
from pipelines.config.training import (
    ClusterConfig,
    DensityConfig,
    EvaluateConfig,
    TrainConfig,
    Training,
)
