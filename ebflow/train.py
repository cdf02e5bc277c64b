"""Training: knows tensors and data sets, not Ray, not MLflow.

A ``Trainer`` is an iterator of events. Whoever drives it logs, saves and shows progress between
them; the trainer computes. A resumed trainer goes on bit for bit as if it had not stopped:
batches, noise and probes are functions of (seed, step).
"""

__all__ = ["Event", "Trainer"]

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .blindness import Standing, diagnose, latent_statistics
from .checkpoint import Checkpoint, read, write
from .clock import Clock
from .data.augment import Augmentation
from .data.loader import Dataset
from .errors import BadInput, NonFinite
from .evaluate import evaluate
from .flow import Flow
from .loss import Loss
from .parallel import gather, gathered, is_split, unsynchronised, whole
from .precision import products
from .randomness import generator as derive
from .resume import pack, unpack
from .schedules import Schedule, cosine
from .spec_checks import UNFIT

WORRY = 3
"""Validations without a better one before an event says why."""

ROWS = 1000
"""Rows at a time of a validation."""

SOME = 250
"""Validation rows whose latents, and training rows whose likelihood, are told beside it."""

PACE = 10
"""Steps between looks at the clock where they are costly: a GPU's queue of work is let run empty,
several workers agree."""


@dataclass(frozen=True)
class Event:
    """What happened at a step.

    Attributes:
        kind: ``log`` or ``validate``.
        step: The number of steps done.
        metrics: Names of the metrics and their values.
        best: Whether this validation is the best so far.
        note: Why the validation NLL has not fallen for a while; empty while it does.
    """

    kind: str
    step: int
    metrics: dict[str, float]
    best: bool = False
    note: str = ""


class Trainer:
    """Creates the training of a flow on a data set.

    Arguments:
        flow: The flow, preprocessing included; its trainable parameters are trained in place.
        dataset: Prepared data with splits ``train`` and ``validation``.
        loss: From the flow behind the cut to its loss.
        optimizer: From parameters to an optimiser.
        schedule: The learning-rate factor as a function of progress.
        steps: The number of steps.
        max_seconds: Training seconds (steps and data, not validation or reports) after which to
            stop; the schedule then follows whichever bound is nearer.
        batch_size: Rows of a global batch.
        augment: From raw training rows and a generator to what is trained on instead, a function
            of (seed, step); validation sees the rows as they are.
        accumulate: Parts of a worker's batch, one after another: B / (workers n) rows are in
            memory at a time, and the step is the same up to rounding.
        clip: The largest norm of the gradient; None: no clipping.
        ema_decay: The average's decay d, used as min(d, (1 + t)/(10 + t)) at update t.
        finish: The last fraction of training, by exact maximum likelihood.
        validate_every: Steps between validations.
        patience: Validations without a better one before training stops; None: never.
        log_every: Steps between log events.
        precision: Of a step's products, as in :func:`~ebflow.precision.products`;
            preprocessing, the anchor and likelihoods are always of the highest.
        seed: The seed of batches, noise and probes.
        shard: Rank and number of workers.
        wrap: What DDP or FSDP (``parallel.split``) does to the loss module; the identity on one
            worker.
        config: What led to all this, JSON-able; kept in checkpoints.
    """

    def __init__(
        self,
        flow: Flow,
        dataset: Dataset,
        *,
        loss: Callable[[Flow], Loss],
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Schedule = cosine,
        steps: int = 1000,
        max_seconds: float | None = None,
        batch_size: int = 100,
        accumulate: int = 1,
        augment: Augmentation | None = None,
        clip: float | None = None,
        ema_decay: float = 0.999,
        finish: float = 0.0,
        validate_every: int = 500,
        patience: int | None = None,
        log_every: int = 50,
        precision: str = "highest",
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.flow, self.dataset, self.config = flow, dataset, config
        self.batch_size, self.seed, self.shard = batch_size, seed, shard
        self.accumulate = accumulate
        self.device = flow.like.device
        self._initialise()
        self.loss = loss(flow.matched)
        if accumulate > 1 and self.loss.latent_mean:
            raise ValueError(f"accumulate: found {accumulate} with latent_mean, expected 1: a "
                             "mean over the batch is not the mean of its parts'")  # fmt: skip
        self.ema = AveragedModel(self.loss.flow, multi_avg_fn=self._average)
        front = list(flow.layers)[: flow.cut]
        self.averaged = Flow(flow.event_shape, [*front, *self.ema.module.layers], cut=flow.cut)
        self.averaged.eval()
        self.module = wrap(self.loss)
        if is_split(self.module):
            wrap(self.ema)
        self.parameters = [p for p in flow.parameters() if p.requires_grad]
        self.optimizer = optimizer(self.parameters)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.schedule, self.steps, self.max_seconds = schedule, steps, max_seconds
        self.augment = augment
        self.clip, self.finish = clip, finish
        self.validate_every, self.patience, self.log_every = validate_every, patience, log_every
        self.precision, self.ema_decay = precision, ema_decay
        self.clock = Clock()
        self.step, self.progress, self.timed = 0, 0.0, 0.0
        self.best, self.best_step, self.stale, self.validated = Standing(), 0, 0, -1
        self.train_loss = math.nan
        self.verdict = ""
        self.window: list[Tensor] = []
        self.norms: list[Tensor] = []

    def _initialise(self) -> None:
        """Shows layers that need it the first global batch, whole on every worker."""
        if not self.flow.initialised:
            split = self.dataset.split("train")
            batches = split.shuffled(self.batch_size, seed=self.seed, device=self.device)
            noise = derive(self.seed, "initialise", device=self.device)
            self.flow.initialise(next(batches).x, noise)

    def run(self) -> Iterator[Event]:
        """Yields events until training ends; ``verdict`` then says why it did.

        Raises:
            NonFinite: if a loss or a validation is not finite, naming the step.
        """
        split = self.dataset.split("train")
        batches = split.shuffled(
            self.batch_size,
            seed=self.seed,
            start=self.step,
            shard=self.shard,
            device=self.device,
        )
        while True:
            if self._due():
                yield from self._told(self.validate())
            if self.verdict:
                return
            with self.clock("data"):
                x = next(batches).x
            with self.clock("step"), self._located():
                self.train_step(x)
            if self.step % self.log_every == 0 or self._ended():
                with self.clock("log"):
                    event = self._log()
                yield from self._told(event)

    def train_step(self, x: Tensor) -> None:
        """Does one step on raw rows with shape (B / workers, D)."""
        self._set_rate()
        if self.loss.anchor is not None and not self.loss.finishing:
            gather(self.loss)
            self.loss.anchor.step()
        self.optimizer.zero_grad(set_to_none=True)
        *parts, last = enumerate(x.chunk(self.accumulate))
        with unsynchronised(self.module) if parts else nullcontext():
            losses = [self._backward(*part) for part in parts]
        losses.append(self._backward(*last))
        if self.clip is not None:
            self.norms.append(self._clip(self.clip))
        self.optimizer.step()
        self.ema.update_parameters(self.loss.flow)
        self.window.append(sum(losses))
        self.step += 1
        self._advance()

    def _backward(self, part: int, x: Tensor) -> Tensor:
        """Adds the gradient of a part of the batch; returns its share of the mean loss.

        Its random numbers are those of its rows in the global batch.
        """
        rank, world = self.shard
        shard = (rank * self.accumulate + part, world * self.accumulate)
        generator = derive(self.seed, "train", self.step, shard=shard, device=self.device)
        if self.augment is not None:
            drawn = derive(self.seed, "augment", self.step, shard=shard, device=self.device)
            x = self.augment(x, drawn)
        with torch.no_grad():
            y = self.flow.preprocess(x, generator)
        with products(self.precision, self.device.type):
            loss = self.module(y, generator).mean() / self.accumulate
            alone = self.module is self.loss and not is_split(self.loss)
            loss.backward(inputs=self.parameters if alone else None)
        return loss.detach()

    def _clip(self, largest: float) -> Tensor:
        """Clips the gradient; returns its norm before."""
        norm = nn.utils.clip_grad_norm_(self.parameters, largest).detach()
        return whole({"norm": norm})["norm"]

    def validate(self) -> Event:
        """Returns the exact NLL of the averaged weights, and the latents' statistics."""
        with self.clock("validate"), self._located(), torch.no_grad(), gathered(self.ema):
            flow, split = self.averaged, self.dataset.split("validation")
            result = evaluate(flow, split, batch_size=ROWS)
            latent = latent_statistics(flow(next(split.batches(SOME)).x), seed=self.seed)
            train_nll = -float(flow.log_prob(self._some).mean())
        now = Standing(self.agreed(result.nll), train_nll, self.train_loss)
        best, self.validated = now.nll < self.best.nll, self.step
        metrics = {
            "val/nll": now.nll,
            "val/bpd": result.bpd,
            "train/nll": train_nll,
            **latent,
            "time/train_s": self.seconds,
        }
        if best:
            self.best, self.best_step, self.stale = now, self.step, 0
        else:
            self.stale += 1
        note = diagnose(now, self.best, latent)
        self._judge(note)
        return Event("validate", self.step, metrics, best, note if self.stale >= WORRY else "")

    def _judge(self, note: str) -> None:
        """Ends training, with the reason, if it is time."""
        told = f": {note}" if self.stale >= min(WORRY, self.patience or WORRY) else ""
        if self.patience is not None and self.stale >= self.patience:
            self.verdict = f"stopped early at step {self.step}{told}"
        elif self._ended():
            self.verdict = f"ended after {self.step} steps{told}"

    @cached_property
    def _some(self) -> Tensor:
        split = self.dataset.split("train")
        rows = min(SOME, len(split))
        return next(split.shuffled(rows, seed=self.seed, device=self.device)).x

    @property
    def seconds(self) -> float:
        """Seconds spent training: steps and data."""
        return self.clock.total("step") + self.clock.total("data")

    def checkpoint(self) -> Checkpoint:
        """Returns all that an exact resume needs; call it between events, on all workers."""
        return pack(self)

    def save(self, folder: str) -> None:
        """Writes ``checkpoint()`` to a folder, whole or not at all; call it on all workers.

        The first of them writes.
        """
        with self.clock("checkpoint"):
            checkpoint = self.checkpoint()
            if self.shard[0] == 0:
                write(folder, checkpoint)

    def resume(self, folder: str) -> None:
        """Goes on from a folder written by ``save``.

        Raises:
            BadInput: if it is damaged, was made with other data, or does not fit this training.
        """
        saved = read(folder)
        mine = {"data": self.dataset.digest, "seed": self.seed,
                "batch_size": self.batch_size}  # fmt: skip
        for name, expected in mine.items():
            found = saved.state.get(name)
            if found != expected:
                raise BadInput(f"{folder}: found a training with {name} {found}, "
                               f"expected {expected}")  # fmt: skip
        try:
            unpack(self, saved)
        except UNFIT as error:
            raise BadInput(f"{folder}: does not fit this training: {error}") from error

    def agreed(self, value: float) -> float:
        """Returns rank 0's value on every rank, so that all decide alike."""
        if not torch.distributed.is_initialized():
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, 0)
        return float(shared)

    def wait(self) -> None:
        """Waits until all workers are here."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()

    def _told(self, event: Event) -> Iterator[Event]:
        with self.clock("report"):
            yield event

    @contextmanager
    def _located(self) -> Iterator[None]:
        """Names the step of what is not finite; a loss that broke before it is told instead."""
        try:
            yield
        except NonFinite as error:
            self._check(torch.tensor([float(loss) for loss in self.window]))
            raise NonFinite(f"step {self.step}: {error}") from error

    def _average(self, ema: list[Tensor], current: list[Tensor], _: Tensor | int) -> None:
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(ema, current, 1 - decay)

    def _set_rate(self) -> None:
        self.loss.progress, self.loss.step = self.progress, self.step
        self.loss.finishing = self.finish > 0 and self.progress >= 1 - self.finish
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.schedule(self.progress)

    def _advance(self) -> None:
        self.progress = self.step / self.steps
        costly = self.device.type == "cuda" or self.shard[1] > 1
        if not costly or self.step % PACE == 0:
            self._look_at_the_clock()
        self.progress = max(self.progress, self.timed)

    def _look_at_the_clock(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if self.max_seconds is not None:
            self.timed = self.agreed(self.seconds) / self.max_seconds

    def _ended(self) -> bool:
        return self.progress >= 1

    def _due(self) -> bool:
        at = self.step % self.validate_every == 0 or self._ended()
        return at and self.validated < self.step

    def _check(self, losses: Tensor) -> None:
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = self.step - len(losses) + int(bad[0, 0])
            raise NonFinite(
                f"step {step}: found a loss of {losses[bad[0, 0]]} ({self.loss.name}); lower "
                "train.lr, clip the gradient, raise the noise, or train in float64"
            )

    def _log(self) -> Event:
        losses = _mean_over_workers(torch.stack(self.window))
        self._check(losses)
        self.train_loss = float(losses.mean())
        if math.isnan(self.best.loss):
            self.best = replace(self.best, loss=self.train_loss)
        seconds = self.clock.lap("step") + self.clock.lap("data")
        count = len(losses)
        metrics = {
            "train/loss": self.train_loss,
            "train/lr": self.optimizer.param_groups[0]["lr"],
            "train/examples_per_s": count * self.batch_size / max(seconds, 1e-9),
            "time/step_ms": 1e3 * seconds / count,
        }
        metrics |= {f"train/{name}": value for name, value in self.loss.hyperparameters.items()}
        if self.norms:
            metrics["train/grad_norm"] = float(torch.stack(self.norms).mean())
        if self.loss.anchor is not None:
            metrics["anchor/refreshes"] = float(self.loss.anchor.refreshes)
            metrics["anchor/drift"] = self.loss.anchor.drift
        if self.loss.latent is not None:
            stats = latent_statistics(self.loss.latent, seed=self.seed)
            metrics |= {f"train/{name}": value for name, value in stats.items()}
        self.window, self.norms = [], []
        return Event("log", self.step, metrics)


def _mean_over_workers(losses: Tensor) -> Tensor:
    """Returns the losses of the global batches, of which each worker has a part."""
    if not torch.distributed.is_initialized():
        return losses
    torch.distributed.all_reduce(losses)
    return losses / torch.distributed.get_world_size()
