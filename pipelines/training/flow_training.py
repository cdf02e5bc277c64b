"""The training of a flow on one worker or several, which resumes from its checkpoints."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ebflow.bijections.base import products
from ebflow.checkpoint import PARTS, Checkpoint, columns_of, spec_of
from ebflow.evaluation import latent_statistics
from ebflow.flow import Flow
from ebflow.history import Event
from ebflow.loss import LossFunction, LossModule, Progress
from ebflow.tables.batches import Batch
from ebflow.train import Trainer
from pipelines.training.augment import Augmentation
from pipelines.training.resumable import (
    ResumableTraining,
    flatten,
    parameter_of,
    state_of,
    unflatten,
)
from pipelines.training.sharding import distributed, full, is_sharded, unsharded, unsynchronized

PACE = 10
"""Steps between two looks at the clock if they cost time: a GPU has to finish its queue of work,
and several workers have to agree."""


class FlowTraining(Trainer, ResumableTraining):
    """Creates the training of a flow, alone or as one of several workers.

    Arguments:
        flow: The flow, preprocessing included; its trainable parameters are trained in place.
        dataset: Data with splits ``train`` and ``validation``.
        loss: The loss, as of :class:`~ebflow.train.Trainer`.
        accumulate: Parts of a worker's batch, one after another: fewer rows are in memory at a
            time, and the step is the same up to rounding. Not for a loss with a latent mean.
        augment: A function from raw training rows and a generator to the rows to train on;
            validation uses the rows as they are.
        clip: The largest norm of the gradient; None: no clipping.
        decay: A further learning-rate factor, of the number of steps done.
        watch: Further metrics of log events, as a function of the share of training.
        precision: Of a step's products, as in :func:`~ebflow.bijections.base.products`;
            preprocessing, the anchor and likelihoods always have the highest.
        shard: Rank and number of workers.
        wrap: Wraps the loss module by DDP or FSDP (``shard_weights``); the identity on one worker.
        config: The configuration, JSON-able; saved in checkpoints.
        **options: Those of :class:`~ebflow.train.Trainer`. ``batch_size`` counts the rows of all
            workers; ``max_seconds`` counts steps and data, and not validations.
    """

    def __init__(
        self,
        flow: Flow,
        dataset: Any,  # noqa: ANN401
        *,
        loss: LossFunction,
        accumulate: int = 1,
        augment: Augmentation | None = None,
        clip: float | None = None,
        decay: Callable[[int], float] = lambda step: 1.0,
        watch: Callable[[float], dict[str, float]] = lambda share: {},
        precision: str = "highest",
        shard: tuple[int, int] = (0, 1),
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        config: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        ResumableTraining.__init__(self, shard)
        self.accumulate, self.augment, self.clip = accumulate, augment, clip
        self.decay, self.watch, self.precision = decay, watch, precision
        self.wrap, self.config = wrap, config
        self.norms: list[Tensor] = []
        self.share, self._latent = 0.0, None
        Trainer.__init__(self, flow, dataset, loss=loss, **options)
        if self.filling is not None:
            self.filling.shard = shard

    @property
    def identity(self) -> dict[str, Any]:
        """The data, the seed and the batch."""
        return {"data": self.dataset.digest, "seed": self.seed, "batch_size": self.batch_size}

    @property
    def seconds(self) -> float:
        """Seconds of steps and data."""
        return self.clock.total("step") + self.clock.total("data")

    def run(self) -> Iterator[Event]:
        """Yields events until training ends; ``verdict`` then says why it did."""
        for event in Trainer.run(self):
            with self.clock("report"):
                yield event

    agreed = ResumableTraining.agreed

    def wrapped(self, module: LossModule) -> nn.Module:
        """Returns the module that computes losses, with weights copied or sharded."""
        wrapped = self.wrap(module)
        if is_sharded(wrapped):
            self.wrap(self.ema)
        return wrapped

    def batches(self) -> Iterator[Batch]:
        """Yields this worker's parts of random batches, from the present step on."""
        split = self.dataset.split("train")
        options = {"seed": self.seed, "start": self.step, "shard": self.shard}
        batches = split.shuffled(self.batch_size, device=self.device, **options)
        while True:
            with self.clock("data"):
                batch = next(batches)
            yield batch

    def fill(self) -> None:
        """Samples missing entries of training rows, if it is time."""
        self.between()
        if self.filling is not None and self.filling.due(self.step):
            with self.clock("data"), unsharded(self.ema):
                super().fill()

    def train_step(self, batch: Batch) -> None:
        """Does one step on raw rows with shape (B / workers, D)."""
        with self.clock("step"):
            super().train_step(batch)

    def rate_factor(self) -> float:
        """Returns the factor of the learning rate at the present step."""
        return super().rate_factor() * self.decay(self.step)

    def backward(self, batch: Batch) -> Tensor:
        """Computes the gradient of a batch, part by part, and clips it; returns the mean loss."""
        self.share = min(self.progress, 1.0)
        size = -(-len(batch.x) // self.accumulate)
        *parts, last = self._parts(batch, size)
        with unsynchronized(self.module) if parts else nullcontext():
            losses = [self._backward(*part) for part in parts]
        losses.append(self._backward(*last))
        if self.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip).detach()
            self.norms.append(full({"norm": norm})["norm"])
        return sum(losses)

    def _parts(self, batch: Batch, size: int) -> Iterator[tuple[int, Batch, float]]:
        """Yields parts of a batch, each with its first row and its share of the batch."""
        rows = len(batch.x)
        for first in range(0, rows, size):
            part = batch.cut(slice(first, first + size))
            yield self.shard[0] * rows + first, part, len(part.x) / rows

    def _backward(self, first: int, batch: Batch, share: float) -> Tensor:
        """Adds the gradient of a part of the batch; returns its share of the mean loss.

        Its random numbers are those of its rows in the batch of all workers.
        """
        x = batch.x
        if self.augment is not None:
            x = self.augment(x, self.noise("augment", first))
        noise = self.noise("train", first)
        with torch.no_grad():
            y = self.flow.preprocess(x, generator=noise)
        progress = Progress(self.step, self.share)
        with products(self.precision, self.device.type):
            losses, self._latent = self.module(y, batch.context, noise, progress)
            loss = losses.mean() * share
            alone = self.module is self.plain and not is_sharded(self.plain)
            loss.backward(inputs=self.parameters if alone else None)
        return loss.detach()

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
        with self.clock("validate"), unsharded(self.ema):
            return super().validate()

    def log(self) -> Event:
        """Returns the mean loss over all workers, the rate, speed, and what is watched."""
        with self.clock("log"):
            self.window = list(_mean_over_workers(torch.stack(self.window)))
            count = len(self.window)
            event = super().log()
            seconds = self.clock.lap("step") + self.clock.lap("data")
            speed = {
                "train/examples_per_s": count * self.batch_size / max(seconds, 1e-9),
                "time/step_ms": 1e3 * seconds / count,
            }
            return replace(event, metrics={**event.metrics, **speed, **self._watched()})

    def _watched(self) -> dict[str, float]:
        metrics = {f"train/{name}": value for name, value in self.watch(self.share).items()}
        if self.norms:
            metrics["train/grad_norm"] = float(torch.stack(self.norms).mean())
            self.norms = []
        if self.anchor is not None:
            metrics["anchor/refreshes"] = float(self.anchor.refreshes)
            metrics["anchor/drift"] = self.anchor.drift
        if self._latent is not None:
            statistics = latent_statistics(self._latent, seed=self.seed)
            metrics |= {f"train/{name}": value for name, value in statistics.items()}
        return metrics

    # Saving and resuming

    def pack(self) -> Checkpoint:
        """Returns all that an exact resume needs; call it on all workers."""
        tensors, groups = flatten(self.optimizer.state_dict())
        for prefix, part in self._parts_with_state:
            state = {} if part is None else part.state()
            tensors |= {f"{prefix}{name}": tensor for name, tensor in state.items()}
        tensors["ema.count"] = self.ema.n_averaged
        if self.first_log_probs is not None:
            tensors["validation.first"] = self.first_log_probs
        for name, window in (("losses", self.window), ("norms", self.norms)):
            tensors |= {f"window.{name}": torch.stack(window)} if window else {}
        state = {
            "flow": spec_of(self.flow),
            "columns": columns_of(self.flow),
            "training": self.identity,
            "progress": asdict(self.state),
            "epoch": self.step * self.batch_size // len(self.dataset.split("train")),
            "config": self.config,
            "optimizer": groups,
            "clock": self.clock.totals,
        }
        parts = (self.flow.state_dict(), self.averaged.state_dict(), tensors)
        model, ema, tensors = map(full, parts)
        return Checkpoint(model, state, ema, tensors)

    def unpack(self, saved: Checkpoint) -> None:
        """Restores what ``pack`` returned; the training may change its tensors."""
        for flow, tensors in ((self.flow, saved.model), (self.averaged, saved.ema)):
            flow.load_state_dict(distributed(tensors, flow.state_dict()))
        tensors, state = dict(saved.optimizer), saved.state
        self.ema.n_averaged.copy_(tensors.pop("ema.count"))
        self.first_log_probs = tensors.pop("validation.first", None)
        self.window, self.norms = (
            list(tensors.pop(f"window.{name}", torch.empty(0)).to(self.device))
            for name in ("losses", "norms")
        )
        for prefix, part in self._parts_with_state:
            own = _extracted(tensors, prefix)
            if part is not None:
                part.load(own)
        moments = distributed(
            tensors, {key: self.parameters[parameter_of(key)] for key in tensors}
        )
        self.optimizer.load_state_dict(unflatten(moments, state["optimizer"]))
        self.clock.restore(state["clock"])
        self.state = state_of(state["progress"])

    def snapshot(self) -> Checkpoint:
        """Returns a copy of everything that changes during training, in the CPU's memory."""
        with self.clock("checkpoint"):
            return _copied(self.pack())

    def restore(self, snapshot: Checkpoint) -> None:
        """Restores a snapshot, but not its clock; the snapshot stays as it is."""
        saved = _copied(snapshot)
        self.unpack(replace(saved, state={**saved.state, "clock": self.clock.totals}))

    def remember(self) -> None:
        """Keeps the present state as the best, to return to; call it on all workers."""
        if self.retry and math.isfinite(self.state.best.nll):
            self.best = self.snapshot()

    @property
    def _parts_with_state(self) -> tuple[tuple[str, Any], ...]:
        """Parts that have tensors of their own, by the prefix of their names."""
        return (("anchor.", self.anchor), ("missing.", self.filling))


def _copied(checkpoint: Checkpoint) -> Checkpoint:
    """Returns a copy in the CPU's memory, without shared tensors."""
    parts = {
        name: {k: t.detach().to("cpu", copy=True) for k, t in getattr(checkpoint, name).items()}
        for name in PARTS
    }
    return Checkpoint(**parts, state=copy.deepcopy(checkpoint.state))


def _extracted(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Removes the tensors with a prefix from ``tensors``; returns them without it."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _mean_over_workers(losses: Tensor) -> Tensor:
    """Returns the losses of the batches of all workers, of which each has a part."""
    if not torch.distributed.is_initialized():
        return losses
    torch.distributed.all_reduce(losses)
    return losses / torch.distributed.get_world_size()
