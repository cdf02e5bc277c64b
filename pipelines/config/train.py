"""The optimization, and where it runs."""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from pipelines.config.section import UNKEYED, Section


class TrainConfig(Section):
    """The optimization."""

    steps: int = Field(6000, ge=1, description="optimizer steps at most")
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
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = Field("adam", description="optimizer")
    lr: float = Field(2e-3, gt=0, description="learning rate")
    lr_width: int | None = Field(
        None,
        ge=1,
        description="columns or pixels D at which the rate is lr; at another D it is lr times "
        "√(lr-width / D); None: lr at any D",
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="weight decay; of adamw: of the networks inside layers only",
    )
    schedule: Literal["constant", "cosine", "multistep"] = Field(
        "cosine", description="learning rate over time"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of linear warm-up at the start")
    milestones: int = Field(2, ge=1, description="of multistep: how often the rate falls")
    gamma: float = Field(0.1, gt=0, le=1, description="of multistep: factor at each fall")
    epoch: int | None = Field(
        None,
        ge=1,
        description="of multistep: steps from one fall to the next, however long the training "
        "is; None: the falls are spread over it",
    )
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
    validate_every: int = Field(
        250, ge=1, description="steps between validations; before the first, also 16, 32, 64 …"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after that many validations without improvement; None: never"
    )
    retry: bool = Field(
        True,
        description="where a loss or a likelihood is not finite, go on from the best validation "
        "with a quarter of the learning rate, once, and end with that one if it happens again; "
        "else the run fails",
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
    memory: float = Field(
        0.0,
        ge=0,
        description="GiB of a cluster's node that every worker reserves; 0: a node takes as many "
        "as it has CPUs for",
        json_schema_extra=UNKEYED,
    )
    split: bool = Field(
        False,
        description="split weights, gradients and optimizer state among the workers (FSDP) "
        "instead of copying them, for flows too large for one",
    )
    max_failures: int = Field(
        2,
        ge=0,
        description="restarts after a dead worker that Ray Train launched; a lone one on this "
        "machine is its stage's next attempt (--retries)",
        json_schema_extra=UNKEYED,
    )
    patience: float = Field(
        1800.0,
        gt=0,
        description="seconds without a log event or a validation after which a worker counts as "
        "hung and dead",
        json_schema_extra=UNKEYED,
    )
