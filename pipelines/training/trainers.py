"""From a configuration to a trainer."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import nn

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.flow import Flow
from ebflow.loss import Schedule, constant, cosine, warmed
from ebflow.optimizers import adamw
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import generator
from ebflow.tables import Columns
from pipelines.config import Dsm, Objective, ScoreMatching, TrainConfig, Training
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.tracking.provenance import code
from pipelines.training.augment import AUGMENTATIONS, Augmentation, composed, noised
from pipelines.training.flow_training import FlowTraining
from pipelines.training.losses import StabilizedLoss, epochs, geometric, multistep
from pipelines.training.nets import net
from pipelines.training.rivals import RIVALS

ALIKE = {"steps", "max_seconds", "batch_size", "accumulate", "clip", "ema_decay", "validate_every",
         "patience", "log_every", "precision", "retry"}  # fmt: skip
"""Options of a training that are arguments of the trainer by the same names."""

CHECK_EVERY = 5
"""Steps between probes of the anchor's drift."""


def build(
    config: Training,
    dataset: Dataset,
    start: Preprocessing | Flow,
    *,
    device: torch.device | str = "cpu",
    shard: tuple[int, int] = (0, 1),
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> FlowTraining:
    """Returns the trainer of a configuration on prepared data.

    Arguments:
        start: The chain that was fitted to them, which stands in front of a new flow; or a flow
            that is trained on.
    """
    train = config.train
    new = isinstance(start, Preprocessing)
    flow = (_flow(config, dataset, start) if new else start.requires_grad_()).to(device)
    flow.columns = _columns(dataset.manifest)
    loss = _loss(config, flow.core)
    return FlowTraining(
        flow,
        dataset,
        loss=loss,
        watch=loss.hyperparameters,
        optimizer=partial(_optimizer, train, flow, dataset.split("train").width),
        schedule=_schedule(train),
        decay=_decay(train),
        augment=_augment(train, dataset.split("train").shape),
        **train.model_dump(include=ALIKE),
        seed=config.seed,
        shard=shard,
        wrap=wrap,
        config={**config.model_dump(mode="json"), "commit": code()["commit"]},
    )


def _flow(config: Training, dataset: Dataset, chain: Preprocessing) -> Flow:
    given = dataset.manifest.context
    flow = net(
        config.model,
        dataset.split("train").shape,
        mixture=chain.base,
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
             "resize": manifest.source.get("resize"), "dtype": manifest.dtype,
             "levels": manifest.levels}  # fmt: skip
    return Columns((), "tensor", manifest.context and manifest.context.columns, notes)


def _augment(config: TrainConfig, shape: Sequence[int]) -> Augmentation | None:
    """Returns the changes of training rows at every step: images are moved, then noised."""
    parts: list[Augmentation] = []
    if config.augment != "none":
        parts.append(AUGMENTATIONS[config.augment](shape))
    if config.noise:
        parts.append(noised(config.noise))
    return composed(*parts) if parts else None


def _loss(config: Training, matched: Flow) -> StabilizedLoss:
    rule, objective = config.anchor, config.objective
    matching = isinstance(objective, ScoreMatching)
    falls = isinstance(objective, Dsm) and objective.sigma_end and objective.levels == 1
    weight = rule.weight if matching else 0.0
    anchor = Anchor(
        matched,
        interval=rule.interval,
        tolerance=rule.tolerance,
        check_every=CHECK_EVERY,
        seed=config.seed,
    )
    return StabilizedLoss(
        _objective(objective, anchor),
        weight=config.objective_weight,
        every=objective.every if matching else 1,
        annealed={"sigma": geometric(objective.sigma, objective.sigma_end)} if falls else {},
        anchor=anchor if weight or objective.name == "lazy_ml" else None,
        anchor_weight=weight,
        low_energy=config.stabilise.low_energy,
        latent_mean=config.stabilise.latent_mean,
        finish=config.stabilise.finish,
    )


def _objective(objective: Objective, anchor: Anchor) -> objectives.Objective:
    function = {**objectives.OBJECTIVES, **RIVALS}[objective.name]
    if objective.name == "lazy_ml":
        return partial(function, anchor=anchor)
    return partial(function, **objective.arguments)


def _optimizer(
    config: TrainConfig, flow: Flow, width: int, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Returns the optimizer; its learning rate is for events of ``width`` elements."""
    kinds = {
        "adam": partial(torch.optim.Adam, fused=True),
        "adamw": partial(adamw, flow),
        "rmsprop": torch.optim.RMSprop,
        "sgd": partial(torch.optim.SGD, fused=True),
    }
    lr = config.lr * math.sqrt((config.lr_width or width) / width)
    return kinds[config.optimizer](parameters, lr=lr, weight_decay=config.weight_decay)


def _schedule(config: TrainConfig) -> Schedule:
    stretched = constant if config.epoch else multistep(config.gamma, config.milestones)
    kinds = {"constant": constant, "cosine": cosine, "multistep": stretched}
    return warmed(kinds[config.schedule], config.warmup)


def _decay(config: TrainConfig) -> Callable[[int], float]:
    """Returns what the number of steps, and not progress, does to the learning rate."""
    if config.schedule != "multistep" or config.epoch is None:
        return lambda step: 1.0
    return epochs(config.gamma, config.epoch, config.milestones)
