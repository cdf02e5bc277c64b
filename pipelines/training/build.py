"""From a configuration to a flow, and to its training."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.architectures import ARCHITECTURES
from ebflow.bases import Base
from ebflow.errors import BadInput
from ebflow.flow import Flow
from ebflow.loss import balancing_weight, constant, cosine, warmed
from ebflow.optimizers import adamw
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import generator
from ebflow.recipes import IMAGES
from ebflow.tables import Columns
from pipelines.cluster.connection import uses_ray_train
from pipelines.config import Dsm, Model, ScoreMatching, Training
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.tracking.provenance import code
from pipelines.tracking.run import Reporter
from pipelines.training.augment import augmentation
from pipelines.training.flow_training import FlowTraining
from pipelines.training.loop import TrainingLoop, WorkerContext, lone_worker
from pipelines.training.losses import StabilizedLoss, epochs, geometric

ALIKE = {"steps", "max_seconds", "batch_size", "clip", "ema_decay", "validate_every",
         "patience", "log_every", "precision", "retry", "smoothing"}  # fmt: skip
"""Options of a training that are arguments of the trainer by the same names."""

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "rmsprop": torch.optim.RMSprop,
    "sgd": partial(torch.optim.SGD, fused=True),
}

CHECK_EVERY = 5
"""Steps between probes of the anchor's drift."""


def fit(
    config: Training,
    data: Path,
    preprocessing: Path,
    work: Path,
    reporter: Reporter,
    *,
    here: bool | None = None,
) -> dict[str, Any]:
    """Trains; resumes from the checkpoints of an earlier call. The result is the loop's.

    Arguments:
        config: The training.
        data: The prepared folder.
        preprocessing: The file of the preprocessing that was fitted to them.
        work: Folder of the checkpoints.
        reporter: Reports the metrics; the caller finishes it.
        here: True if a lone worker trains in this process; None: as ``uses_ray_train`` has it.

    Raises:
        BadInput: If a worker does not see the store, or what is to be read there.
        NonFinite: If a loss or likelihood was not finite, and the training was not to be tried
            again, or had no validation before.
    """
    here = not uses_ray_train(config.cluster) if here is None else here
    if here:
        return train(config, data, preprocessing, work, lone_worker(reporter))
    from pipelines.training.launch import launch

    return launch(config, data, preprocessing, work, reporter)


def train(
    config: Training, data: Path, preprocessing: Path, work: Path, worker: WorkerContext
) -> dict[str, Any]:
    """Trains a flow as one worker; other arguments and the result are those of :func:`fit`."""
    torch.set_num_threads(config.train.threads)
    if config.cluster.gpu:
        torch.cuda.set_device(worker.device)
    training = build_training(
        config,
        Dataset(data),
        Preprocessing.load(preprocessing),
        device=worker.device if config.cluster.gpu else "cpu",
        shard=worker.shard,
    )
    return TrainingLoop(training, work, worker).run()


def build_training(
    config: Training,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    shard: tuple[int, int] = (0, 1),
) -> FlowTraining:
    """Returns the training of a configuration on data, behind their preprocessing."""
    train, split = config.train, dataset.split("train")
    falls = train.schedule == "multistep"
    flow = _preprocessed_flow(config, dataset, preprocessing).to(device)
    flow.columns = _columns(dataset.manifest)
    optimizer = partial(adamw, flow) if train.optimizer == "adamw" else OPTIMIZERS[train.optimizer]
    return FlowTraining(
        flow,
        dataset,
        loss=_loss(config, flow.core),
        optimizer=partial(optimizer, lr=train.lr, weight_decay=train.weight_decay),
        schedule=warmed(cosine if train.schedule == "cosine" else constant, train.warmup),
        decay=epochs(train.gamma, train.epoch, train.milestones if falls else 0),
        augment=augmentation(train.augment, train.noise, split.shape),
        **train.model_dump(include=ALIKE),
        seed=config.seed,
        shard=shard,
        config={**config.model_dump(mode="json"), "commit": code()["commit"]},
    )


def _preprocessed_flow(config: Training, dataset: Dataset, preprocessing: Preprocessing) -> Flow:
    contexts = dataset.manifest.context
    flow = build_flow(
        config.model,
        dataset.split("train").shape,
        base=preprocessing.base,
        context=contexts.width if contexts else 0,
        generator=generator(config.seed, "weights"),
        dtype=getattr(torch, config.train.dtype),
        **preprocessing.architecture_options,
    )
    if contexts:
        flow.standardize_context(torch.tensor(contexts.mean), torch.tensor(contexts.std))
    return flow.preprocessed(preprocessing, match_after=config.preprocess.match_after)


def build_flow(
    model: Model,
    shape: Sequence[int],
    *,
    base: Base | None = None,
    context: int = 0,
    generator: torch.Generator,
    dtype: torch.dtype,
    **categories: Sequence[Any],
) -> Flow:
    """Returns the flow for examples of a shape, with untrained weights from a generator.

    The base is the density of the latents, None for N(0, I). The context has that many elements.
    Categories are described as by ``Preprocessing.architecture_options``.

    Raises:
        BadInput: If the architecture is not for such a shape.
    """
    settings = {"base": base, "context": context, "generator": generator, "dtype": dtype}
    try:
        event = _event_shape(model.architecture, shape)
        options = {**model.options, **settings, **categories}
        return ARCHITECTURES[model.architecture](event, **options)
    except ValueError as error:
        found = f"{model.architecture} for examples of shape {tuple(shape)}"
        raise BadInput(option="--model.architecture", found=found, hint=str(error)) from None


def _event_shape(architecture: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns (D,) for architectures of rows, and (C, H, W) for those of images."""
    if architecture not in IMAGES:
        return (math.prod(shape),)
    if len(shape) not in (2, 3):
        raise ValueError("expected images of shape (H, W) or (C, H, W)")
    return (1, *shape)[-3:]


def _columns(manifest: Manifest) -> Columns:
    """Returns the columns of the data and of their contexts, and notes on rows without names."""
    if manifest.columns is not None:
        return manifest.described
    notes = {"column": manifest.source["column"], "shape": list(manifest.shape),
             "dtype": manifest.dtype, "levels": manifest.levels}  # fmt: skip
    return Columns((), "tensor", manifest.context and manifest.context.columns, notes)


def _loss(config: Training, core: Flow) -> StabilizedLoss:
    rule, objective = config.anchor, config.objective
    matching, lazy = isinstance(objective, ScoreMatching), objective.name == "lazy_ml"
    falls = isinstance(objective, Dsm) and objective.sigma_end
    anchor_weight = rule.weight if matching else 0.0
    anchor = Anchor(
        core,
        interval=rule.interval,
        tolerance=rule.tolerance,
        check_every=CHECK_EVERY,
        seed=config.seed,
    )
    function = objectives.OBJECTIVES[objective.name]
    function = partial(function, **({"anchor": anchor} if lazy else objective.arguments))
    weight = objective.weight if matching else 1.0
    if weight is None:
        weight = balancing_weight(function) if anchor_weight else 1.0
    return StabilizedLoss(
        function,
        weight=weight,
        every=objective.every if matching else 1,
        annealed={"sigma": geometric(objective.sigma, objective.sigma_end)} if falls else {},
        anchor=anchor if anchor_weight or lazy else None,
        anchor_weight=anchor_weight,
        **config.stabilise.model_dump(),
    )
