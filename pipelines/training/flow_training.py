"""The training of a flow: built of its configuration, on one worker or several, timed."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.architectures import ARCHITECTURES
from ebflow.bases import Base
from ebflow.bijections.base import products
from ebflow.bijections.weighted import fixed_weights
from ebflow.errors import BadInput
from ebflow.evaluation import latent_statistics
from ebflow.flow import Flow
from ebflow.history import Event
from ebflow.learned_inverse import LEARNED_INVERSE
from ebflow.loss import LossModule, Progress, adamw, balancing_weight, constant, cosine, warmed
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import generator
from ebflow.recipes import IMAGES
from ebflow.tables import Columns
from ebflow.tables.batches import Batch
from ebflow.train import Trainer
from pipelines.cluster.connection import uses_ray_train
from pipelines.config import Dsm, Model, ScoreMatching, Training
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.tracking.meter import Meter
from pipelines.tracking.provenance import code
from pipelines.tracking.run import Reporter
from pipelines.training.augment import Augmentation, augmentation
from pipelines.training.loop import TrainingLoop, WorkerContext
from pipelines.training.losses import StabilizedLoss, epochs, geometric
from pipelines.training.shards import Shards

# Options of a training that are arguments of the trainer by the same names.
SHARED_OPTIONS = {"steps", "max_seconds", "batch_size", "clip", "ema_decay", "validate_every",
         "patience", "log_every", "precision", "retry", "smoothing"}  # fmt: skip

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "rmsprop": torch.optim.RMSprop,
    "sgd": partial(torch.optim.SGD, fused=True),
}

CHECK_EVERY = 5  # Steps between probes of the anchor's drift

# Steps between two looks at the clock if they cost time: a GPU has to finish its queue of work,
# and several workers have to agree.
PACE = 10


class Clock:
    """Adds up wall seconds by name; a name measured inside another is not counted there."""

    def __init__(self) -> None:
        self.totals = Counter[str]()
        self._inner = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measures a block."""
        outer, self._inner = self._inner, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.totals[name] += spent - self._inner
            self._inner = outer + spent


class FlowTraining(Trainer):
    """Creates the training of a flow, alone or as one of several workers.

    The loop around it reports its events and saves it between them. A resumed training gives the
    same bits as one that never stopped.

    Arguments:
        flow: The flow, preprocessing included; its trainable parameters are trained in place.
        dataset: Data with splits ``train`` and ``validation``.
        loss: The loss; its annealed hyperparameters are logged.
        augment: A function from raw training rows and a generator to the rows to train on;
            validation uses the rows as they are.
        clip: The largest norm of the gradient; None: no clipping.
        decay: A further learning-rate factor, of the number of steps done.
        precision: Of a step's products, as in :func:`~ebflow.bijections.base.products`;
            preprocessing, the anchor and likelihoods always have the highest.
        shard: Rank and number of workers.
        shards: Shards of a batch, whose gradients are summed in a fixed order: the bits are the
            same for any number of workers. 0: DDP takes the mean over workers.
        config: The configuration, JSON-able; saved in checkpoints.
        **options: Those of :class:`~ebflow.train.Trainer`. ``batch_size`` counts the rows of all
            workers; ``max_seconds`` counts steps and data, and not validations.

    Attributes:
        clock: Its seconds by what they were spent on.
        between: A function that is called before every step, and may save the training.
        reload: A function that restores the checkpoint of a step, on all workers.
        workers: The numbers of workers, by the steps from which on they trained.
    """

    reload: Callable[[int], None]

    def __init__(
        self,
        flow: Flow,
        dataset: Any,  # noqa: ANN401
        *,
        loss: StabilizedLoss,
        augment: Augmentation | None = None,
        clip: float | None = None,
        decay: Callable[[int], float] = lambda step: 1.0,
        precision: str = "highest",
        shard: tuple[int, int] = (0, 1),
        shards: int = 0,
        config: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        self.clock, self.shard, self.meter = Clock(), shard, Meter()
        self.between: Callable[[], None] = lambda: None
        self.augment, self.clip, self.decay, self.precision = augment, clip, decay, precision
        self.config = config
        self.norms: list[Tensor] = []
        self.share, self.logged_seconds = 0.0, 0.0
        self._latent: Tensor | None = None
        self.sharded, self.workers = shards > 0, {0: shard[1]}
        super().__init__(flow, dataset, loss=loss, **options)
        self.shards = Shards(self.batch_size, shards or shard[1], *shard)

    @property
    def seconds(self) -> float:
        """Seconds of steps and data."""
        return float(self.clock.totals["step"] + self.clock.totals["data"])

    def agreed(self, value: float) -> float:
        """Returns rank 0's value on every rank, so that all decide alike."""
        if not torch.distributed.is_initialized():
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, 0)
        return float(shared)

    def wrapped(self, module: LossModule) -> nn.Module:
        """Returns the module that computes losses; in DDP, if that sums gradients."""
        if self.sharded or self.shard[1] == 1 or not torch.distributed.is_initialized():
            return module
        ddp = nn.parallel.DistributedDataParallel
        new = "forward_sync_buffers" in signature(ddp).parameters  # of torch 2.13
        return ddp(module, **{"forward_sync_buffers" if new else "broadcast_buffers": False})

    def batches(self) -> Iterator[Batch]:
        """Yields this worker's parts of random batches, from the present step on."""
        split = self.dataset.split("train")
        share = self.shards.rows(self.shards.own)
        options = {"seed": self.seed, "start": self.step, "share": share}
        batches = split.shuffled(self.batch_size, device=self.device, **options)
        while True:
            with self.clock("data"), self.meter:
                batch = next(batches)
            yield batch

    def fill(self) -> None:
        """Samples missing entries of training rows, if it is time."""
        self.between()
        if self.imputer is not None and self.imputer.due(self.step):
            with self.clock("data"):
                super().fill()

    def train_step(self, batch: Batch) -> None:
        """Does one step on raw rows with shape (B / workers, D)."""
        with self.clock("step"):
            super().train_step(batch)

    def rate_factor(self) -> float:
        """Returns the factor of the learning rate at the present step."""
        return super().rate_factor() * self.decay(self.step)

    def backward(self, batch: Batch) -> Tensor:
        """Computes the gradient of the mean loss of a batch, and clips it; returns the loss."""
        self.share = min(self.progress, 1.0)
        if self.sharded:
            with fixed_weights(self.plain.flow):  # changed once a step, as by one shard a worker
                loss = self._sum_of_shards(batch)
        else:
            loss = self._gradient(batch, self.shards.own)
        if self.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
            self.norms.append(norm.detach())
        return loss

    def _gradient(self, batch: Batch, shards: range) -> Tensor:
        """Computes the gradient of the loss of some shards; returns the loss.

        Random numbers are those of these rows in the batch of all workers.
        """
        own, rows = self.shards.rows(self.shards.own), self.shards.rows(shards)
        first = rows.start
        x, context = batch.cut(slice(first - own.start, rows.stop - own.start)).each(torch.clone)
        noise = self.noise("train", first)
        if self.augment is not None:
            x = self.augment(x, self.noise("augment", first))
        y = self.preprocessed(x, noise, first)
        with products(self.precision, self.device.type):
            progress = Progress(self.step, self.share)
            with self.meter:
                losses, latent = self.module(y, context, noise, progress)
            loss = losses.sum() / self.batch_size if self.sharded else losses.mean()
            # DDP takes no list of parameters. Shards share the graphs of parametrized weights.
            alone = self.sharded or not torch.distributed.is_initialized()
            inputs = self.parameters if alone else None
            loss.backward(inputs=inputs, retain_graph=self.sharded)
        if first == own.start:
            self._latent = latent
        return loss.detach()

    def _sum_of_shards(self, batch: Batch) -> Tensor:
        """Computes the gradient as the sum over all shards, in a fixed order; returns the loss."""

        def flat(shard: range) -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._gradient(batch, shard)
            gradients = (p.grad.flatten() for p in self.parameters if p.grad is not None)
            return torch.cat([loss.view(1), *gradients])

        total = self.shards.total(flat)
        used = [p for p in self.parameters if p.grad is not None]
        loss, *gradients = total.split([1, *(p.numel() for p in used)])
        for parameter, gradient in zip(used, gradients, strict=True):
            parameter.grad.copy_(gradient.view_as(parameter))
        return loss.squeeze(0)

    def look_at_the_clock(self) -> None:
        """Updates the share of the time limit; seldom if that costs time."""
        costly = self.device.type == "cuda" or self.shard[1] > 1
        if costly and self.step % PACE:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if self.max_seconds is not None:
            self.state.timed = self.agreed(self.seconds) / self.max_seconds

    def validate(self) -> Event:
        """Returns the exact NLL of the averaged weights, and statistics of the latents."""
        with self.clock("validate"):
            return super().validate()

    def log(self) -> Event:
        """Returns the mean loss over all workers, the rate, the speed and further metrics."""
        with self.clock("log"):
            if not self.sharded:
                self.window = list(_mean_over_workers(torch.stack(self.window)))
            count = len(self.window)
            event = super().log()
            seconds, self.logged_seconds = self.seconds - self.logged_seconds, self.seconds
            speed = {
                "train/examples_per_s": count * self.batch_size / max(seconds, 1e-9),
                "time/step_ms": 1e3 * seconds / count,
            }
            further = {**speed, **self._further_metrics(), **self._own_metrics(count)}
            return replace(event, metrics={**event.metrics, **further})

    def _own_metrics(self, steps: int) -> dict[str, float]:
        """Returns the time of a step without what waits for other workers, and the memory."""
        rank, world = self.shard
        own = self.meter.read(steps)
        return {f"rank_{rank}/{name}": v for name, v in own.items()} if world > 1 else {}

    def _further_metrics(self) -> dict[str, float]:
        metrics = dict(self.loss.hyperparameters(self.share))
        if self.norms:
            metrics["grad_norm"] = float(torch.stack(self.norms).mean())
            self.norms = []
        if self._latent is not None:
            metrics |= latent_statistics(self._latent, seed=self.seed)
        metrics = {f"train/{name}": value for name, value in metrics.items()}
        if self.anchor is not None:
            metrics["anchor/refreshes"] = float(self.anchor.refreshes)
            metrics["anchor/drift"] = self.anchor.drift
        return metrics

    def snapshot(self) -> int:
        """Returns the step: a training that becomes non-finite returns to its checkpoint."""
        return self.step

    def restore(self, step: int) -> None:
        """Restores the checkpoint of a step, but not its clock."""
        clock = self.clock.totals
        self.reload(step)
        since_log = self.seconds - self.logged_seconds
        self.clock.totals = clock
        self.logged_seconds = self.seconds - since_log


def _mean_over_workers(losses: Tensor) -> Tensor:
    """Returns the losses of the batches of all workers, of which each has a part."""
    if not torch.distributed.is_initialized():
        return losses
    torch.distributed.all_reduce(losses)
    return losses / torch.distributed.get_world_size()


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
        return train(config, data, preprocessing, work, WorkerContext(reporter.log))
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
        **train.model_dump(include=SHARED_OPTIONS),
        seed=config.seed,
        shard=shard,
        shards=config.cluster.shard_count,
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
        found = f"{model.architecture} for examples of shape {tuple(shape)} ({error})"
        expected = "another, or another --recipe"
        raise BadInput(option="--model.architecture", found=found, expected=expected) from None


def _event_shape(architecture: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns (D,) for architectures of rows, and (C, H, W) for those of images."""
    if architecture not in IMAGES:
        return (math.prod(shape),)
    if len(shape) not in (2, 3):
        raise ValueError("it is for images of shape (H, W) or (C, H, W)")
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
    function = {**objectives.OBJECTIVES, **LEARNED_INVERSE}[objective.name]
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
