"""From a configuration to a training."""

from collections.abc import Callable
from functools import partial

import torch

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.flow import Flow
from ebflow.loss import constant, cosine, warmed
from ebflow.optimizers import adamw
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import generator
from ebflow.tables import Columns
from pipelines.config import Dsm, ScoreMatching, Training
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.tracking.provenance import code
from pipelines.training.augment import augmentation
from pipelines.training.flow_training import FlowTraining
from pipelines.training.losses import StabilizedLoss, epochs, geometric
from pipelines.training.nets import net
from pipelines.training.rivals import RIVALS

ALIKE = {"steps", "max_seconds", "batch_size", "accumulate", "clip", "ema_decay", "validate_every",
         "patience", "log_every", "precision", "retry"}  # fmt: skip
"""Options of a training that are arguments of the trainer by the same names."""

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "rmsprop": torch.optim.RMSprop,
    "sgd": partial(torch.optim.SGD, fused=True),
}

CHECK_EVERY = 5
"""Steps between probes of the anchor's drift."""


def build(
    config: Training,
    dataset: Dataset,
    chain: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    shard: tuple[int, int] = (0, 1),
) -> FlowTraining:
    """Returns the training of a configuration on data, behind the chain that is fitted to them."""
    train, split = config.train, dataset.split("train")
    falls = train.schedule == "multistep"
    flow = _flow(config, dataset, chain).to(device)
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
        split=config.cluster.split,
        config={**config.model_dump(mode="json"), "commit": code()["commit"]},
    )


def _flow(config: Training, dataset: Dataset, chain: Preprocessing) -> Flow:
    given = dataset.manifest.context
    flow = net(
        config.model,
        dataset.split("train").shape,
        base=chain.base,
        context=given.width if given else 0,
        generator=generator(config.seed, "weights"),
        dtype=getattr(torch, config.train.dtype),
    )
    if given:
        flow.standardize_context(torch.tensor(given.mean), torch.tensor(given.std))
    return flow.preprocessed(chain, match_after=config.preprocess.match_after)


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
    falls = isinstance(objective, Dsm) and objective.sigma_end and objective.levels == 1
    weight = rule.weight if matching else 0.0
    anchor = Anchor(
        core,
        interval=rule.interval,
        tolerance=rule.tolerance,
        check_every=CHECK_EVERY,
        seed=config.seed,
    )
    function = {**objectives.OBJECTIVES, **RIVALS}[objective.name]
    return StabilizedLoss(
        partial(function, **({"anchor": anchor} if lazy else objective.arguments)),
        weight=config.objective_weight,
        every=objective.every if matching else 1,
        annealed={"sigma": geometric(objective.sigma, objective.sigma_end)} if falls else {},
        anchor=anchor if weight or lazy else None,
        anchor_weight=weight,
        **config.stabilise.model_dump(),
    )
