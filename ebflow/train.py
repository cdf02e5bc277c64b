"""The training of a flow: knows tensors and data sets, not Ray, not MLflow.

Batches, noise and probes are functions of (seed, step): one that is resumed goes on bit for bit.
"""

__all__ = ["Trainer"]

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .anchor import Anchor
from .bijections.base import products
from .checkpoint import Checkpoint, copied, flatten, parameter_of, spec_of, unflatten
from .errors import NonFinite
from .evaluation import Validation, diagnose, evaluate, latent_statistics, where_non_finite
from .execution import (
    Augmentation,
    Driven,
    Event,
    distributed,
    full,
    is_sharded,
    unsharded,
    unsynchronized,
)
from .flow import Flow
from .imputation import Filling
from .loss import LossFunction, LossModule, Progress, Schedule, cosine
from .randomness import RowGenerator
from .tables import Completed
from .tables.batches import Batch

EARLY = 16
"""Steps before the first validation of few rows; as many again before each of the next."""

WORRY = 3
"""Validations without a better one before an event says why."""

ROWS = 1000
"""Rows at a time of a validation."""

SOME = 250
"""Validation rows whose latents, and training rows whose likelihood, are told beside it."""

PACE = 10
"""Steps between looks at the clock where they are costly: a GPU's queue of work is let run empty,
several workers agree."""

RELIEF = 0.25
"""Factor of the learning rate after a training became non-finite."""

ADVICE = "lower the learning rate (lr), clip the gradient, raise the noise, or train in float64"


class Trainer(Driven):
    """Creates the training of a flow on a data set.

    Arguments:
        flow: The flow, preprocessing included; its trainable parameters are trained in place.
        dataset: Data with splits ``train`` and ``validation``: a ``Dataset`` or ``Arrays``. What a
            ``Completed`` training split lacks is drawn again as training proceeds.
        loss: From a density, data, a generator and the progress to the losses of all samples and
            the evaluation behind them, as a :class:`~ebflow.loss.Loss` does; it is given the flow
            behind the cut.
        anchor: The anchor of the loss, if it has one: its state is kept in checkpoints.
        optimizer: From parameters to an optimizer.
        schedule: The learning-rate factor as a function of progress.
        decay: A further factor, of the number of steps done, however long the training is.
        steps: The number of steps.
        max_seconds: Training seconds (steps and data, not validation or reports) after which to
            stop; the schedule then follows whichever bound is nearer.
        batch_size: Rows of a global batch.
        augment: From raw training rows and a generator to what is trained on instead, a function
            of (seed, step); validation sees the rows as they are.
        accumulate: Parts of a worker's batch, one after another: as many times fewer rows are in
            memory at a time, and the step is the same up to rounding.
        clip: The largest norm of the gradient; None: no clipping.
        ema_decay: The average's decay d, used as min(d, (1 + t)/(10 + t)) at update t.
        validate_every: Steps between validations; before the first of them there are others after
            16, 32, 64, … steps from the first epoch on, since few rows are over-fitted soon.
        patience: Validations of the interval without a better one before training stops; None:
            never.
        log_every: Steps between log events.
        watch: Further metrics of log events, as a function of the share of training.
        precision: Of a step's products, as in :func:`~ebflow.bijections.base.products`;
            preprocessing, the anchor and likelihoods are always of the highest.
        retry: Whether a training that becomes non-finite goes on from its best validation, once,
            with a quarter of the learning rate, and ends with that one if it breaks again;
            otherwise it raises.
        seed: The seed of batches, noise and probes.
        shard: Rank and number of workers.
        wrap: What DDP or FSDP (``execution.shard_weights``) does to the loss module; the identity
            on one worker.
        config: What led to all this, JSON-able; kept in checkpoints.
    """

    def __init__(
        self,
        flow: Flow,
        dataset: Any,  # noqa: ANN401
        *,
        loss: LossFunction,
        anchor: Anchor | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Schedule = cosine,
        decay: Callable[[int], float] = lambda step: 1.0,
        steps: int = 1000,
        max_seconds: float | None = None,
        batch_size: int = 100,
        accumulate: int = 1,
        augment: Augmentation | None = None,
        clip: float | None = None,
        ema_decay: float = 0.999,
        validate_every: int = 500,
        patience: int | None = None,
        log_every: int = 50,
        watch: Callable[[float], dict[str, float]] = lambda share: {},
        precision: str = "highest",
        retry: bool = True,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(shard)
        self.flow, self.dataset, self.config = flow, dataset, config
        self.batch_size, self.seed = batch_size, seed
        self.accumulate, self.augment, self.clip = accumulate, augment, clip
        self.device = flow.device
        self._initialize()
        core = flow.core
        if accumulate > 1 and getattr(loss, "latent_mean", 0):
            raise ValueError(f"accumulate: found {accumulate} with latent_mean, expected 1: a "
                             "mean over the batch is not the mean of its parts'")  # fmt: skip
        self.loss, self.anchor, self.plain = loss, anchor, LossModule(core, loss)
        self.ema = AveragedModel(core, multi_avg_fn=self._average)
        self.averaged = flow.with_core(self.ema.module).eval()
        self.module = wrap(self.plain)
        if is_sharded(self.module):
            wrap(self.ema)
        self.parameters = [p for p in flow.parameters() if p.requires_grad]
        self.optimizer = optimizer(self.parameters)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.schedule, self.decay = schedule, decay
        self.steps, self.max_seconds = steps, max_seconds
        self.validate_every, self.patience, self.log_every = validate_every, patience, log_every
        self.watch, self.precision, self.ema_decay = watch, precision, ema_decay
        self.filling = self._filling()
        self.retry = retry
        self.kept: Checkpoint | None = None
        self.window: list[Tensor] = []
        self.norms: list[Tensor] = []
        self._share = 0.0
        self._latent: Tensor | None = None
        self._some: Batch | None = None

    @property
    def progress(self) -> float:
        """The share of training that is done, by steps or seconds, whichever is more."""
        return max(self.state.step / self.steps, self.state.timed)

    @property
    def identity(self) -> dict[str, Any]:
        """The data, the seed and the batch."""
        return {"data": self.dataset.digest, "seed": self.seed, "batch_size": self.batch_size}

    def pack(self) -> Checkpoint:
        """Returns all that an exact resume needs; call it on all workers."""
        tensors, groups = flatten(self.optimizer.state_dict())
        for prefix, owner in self._beside:
            tensors |= (
                {f"{prefix}{k}": t for k, t in owner.state().items()} if owner is not None else {}
            )
        tensors["ema.count"] = self.ema.n_averaged
        for name, window in (("losses", self.window), ("norms", self.norms)):
            tensors |= {f"window.{name}": torch.stack(window)} if window else {}
        state = {
            "flow": spec_of(self.flow),
            "columns": self.flow.columns,
            "training": self.identity,
            "progress": self.state.plain(),
            "epoch": self.step * self.batch_size // len(self.dataset.split("train")),
            "config": self.config,
            "optimizer": groups,
            "clock": self.clock.totals,
        }
        parts = (self.flow.state_dict(), self.averaged.state_dict(), tensors)
        model, ema, tensors = map(full, parts)
        return Checkpoint(model, state, ema, tensors)

    def unpack(self, saved: Checkpoint) -> None:
        """Restores what ``pack`` gave; the training may go on with its tensors."""
        for flow, tensors in ((self.flow, saved.model), (self.averaged, saved.ema)):
            flow.load_state_dict(distributed(tensors, flow.state_dict()))
        tensors, state = dict(saved.optimizer), saved.state
        self.ema.n_averaged.copy_(tensors.pop("ema.count"))
        self.window, self.norms = (
            list(tensors.pop(f"window.{name}", torch.empty(0)).to(self.device))
            for name in ("losses", "norms")
        )
        for prefix, owner in self._beside:
            taken = _taken(tensors, prefix)
            if owner is not None:
                owner.load(taken)
        moments = distributed(
            tensors, {key: self.parameters[parameter_of(key)] for key in tensors}
        )
        self.optimizer.load_state_dict(unflatten(moments, state["optimizer"]))
        self.clock.restore(state["clock"])
        self.state = type(self.state).of(state["progress"])

    @property
    def _beside(self) -> tuple[tuple[str, Anchor | Filling | None], ...]:
        """What may have a state of tensors beside the optimizer's, by their prefix."""
        return (("anchor.", self.anchor), ("missing.", self.filling))

    def _initialize(self) -> None:
        """Shows layers that need it the first global batch, whole on every worker."""
        if not self.flow.initialized:
            split = self.dataset.split("train")
            batches = split.shuffled(self.batch_size, seed=self.seed, device=self.device)
            x, context = next(batches)
            self.flow.initialize(
                x, generator=RowGenerator(self.seed, "initialize"), context=context
            )

    def _filling(self) -> Filling | None:
        split, options = self.dataset.split("train"), {"seed": self.seed, "shard": self.shard}
        if not isinstance(split, Completed):
            return None
        return Filling(split, batch_size=self.batch_size, device=self.device, **options)

    def run(self) -> Iterator[Event]:
        """Yields events until training ends; ``verdict`` then says why it did.

        Raises:
            NonFinite: if a loss or a validation is not finite, naming the step and the layer: with
                ``retry`` only where there was no validation before.
        """
        while not self.verdict:
            try:
                yield from self._steps()
            except NonFinite as error:
                if self.kept is None:
                    raise
                event = self._recovered(error)
                yield from self._reported(event)

    def _recovered(self, error: NonFinite) -> Event:
        """Goes back to the best validation: at a lower rate, or for good if that was done."""
        state, again = self.state, self.state.relief == 1
        done = "goes on with a quarter of the learning rate" if again else "ends"
        note = f"{error}; training went back to step {state.best_step}, its best, and {done}"
        later = {
            "timed": state.timed,
            "relief": RELIEF,
            "warnings": [*state.warnings, note],
            "verdict": "" if again else f"became non-finite twice, the last time at {error}",
        }
        kept = copied(self.kept)
        progress = {**kept.state["progress"], **later}
        self.unpack(replace(kept, state={**kept.state, "progress": progress,
                                    "clock": self.clock.totals}))  # fmt: skip
        return Event("resume", self.step, {}, note=note)

    def keep(self) -> None:
        """Keeps all of the best training, to go back to; call it on all workers."""
        if self.retry and math.isfinite(self.state.best.nll):
            with self.clock("checkpoint"):
                self.kept = copied(self.pack())

    def _steps(self) -> Iterator[Event]:
        split = self.dataset.split("train")
        batches = split.shuffled(
            self.batch_size, seed=self.seed, start=self.step, shard=self.shard, device=self.device
        )
        while True:
            if self._due():
                yield from self._reported(self.validate())
            if self.verdict:
                return
            self.between()
            with self.clock("data"):
                self._fill()
                batch = next(batches)
            with self.clock("step"), self._located():
                self.train_step(batch)
            if self.step % self.log_every == 0 or self._ended():
                with self.clock("log"):
                    event = self._log()
                yield from self._reported(event)

    def _fill(self) -> None:
        """Draws what training rows lack again, from the averaged weights, if it is time."""
        if self.filling is not None and self.filling.due(self.step):
            with self._located(), unsharded(self.ema):
                self.filling.redraw(self.averaged, self.step)

    def train_step(self, batch: Batch) -> None:
        """Does one step on raw rows with shape (B / workers, D)."""
        self._share = min(self.progress, 1.0)
        factor = self.state.relief * self.schedule(self.progress) * self.decay(self.step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        size = -(-len(batch.x) // self.accumulate)
        *parts, last = self._parts(batch, size)
        with unsynchronized(self.module) if parts else nullcontext():
            losses = [self._backward(*part) for part in parts]
        losses.append(self._backward(*last))
        if self.clip is not None:
            self.norms.append(self._clip(self.clip))
        self.optimizer.step()
        self.ema.update_parameters(self.plain.flow)
        self.window.append(sum(losses))
        self.state.step += 1
        self._look_at_the_clock()

    def _parts(self, batch: Batch, size: int) -> Iterator[tuple[int, Batch, float]]:
        """Yields parts of a batch, each with its first row and its share of the batch."""
        rows = len(batch.x)
        for first in range(0, rows, size):
            part = batch.cut(slice(first, first + size))
            yield self.shard[0] * rows + first, part, len(part.x) / rows

    def _backward(self, first: int, batch: Batch, share: float) -> Tensor:
        """Adds the gradient of a part of the batch; returns its share of the mean loss.

        Its random numbers are those of its rows in the global batch.
        """
        x = batch.x
        if self.augment is not None:
            x = self.augment(x, RowGenerator(self.seed, "augment", self.step, first=first))
        noise = RowGenerator(self.seed, "train", self.step, first=first)
        with torch.no_grad():
            y = self.flow.preprocess(x, generator=noise)
        progress = Progress(self.step, self._share)
        with products(self.precision, self.device.type):
            losses, self._latent = self.module(y, batch.context, noise, progress)
            loss = losses.mean() * share
            alone = self.module is self.plain and not is_sharded(self.plain)
            loss.backward(inputs=self.parameters if alone else None)
        return loss.detach()

    def _clip(self, largest: float) -> Tensor:
        """Clips the gradient; returns its norm before."""
        norm = nn.utils.clip_grad_norm_(self.parameters, largest).detach()
        return full({"norm": norm})["norm"]

    def validate(self) -> Event:
        """Returns the exact NLL of the averaged weights, and the latents' statistics."""
        with self.clock("validate"), self._located(), torch.no_grad(), unsharded(self.ema):
            flow, split = self.averaged, self.dataset.split("validation")
            result = evaluate(flow, split, batch_size=ROWS)
            x, context = next(iter(split.batches(SOME))).to(self.device)
            latent = latent_statistics(flow.to_latent(x, context=context), seed=self.seed)
            x, context = self._trained_rows()
            train_nll = -float(flow.log_prob(x, context=context).mean())
        state = self.state
        now = Validation(self.agreed(result.nll), train_nll, state.train_loss)
        best, state.validated = now.nll < state.best.nll, self.step
        if best:
            state.best, state.best_step, state.stale = now, self.step, 0
        else:
            state.stale += 1
        note = diagnose(now, state.best, latent)
        self._judge(note)
        if best:
            self.keep()
        metrics = {"val/nll": now.nll, "val/bpd": result.bpd, "train/nll": train_nll, **latent,
                   "time/train_s": self.seconds}  # fmt: skip
        return Event("validate", self.step, metrics, best, note if state.stale >= WORRY else "")

    def _judge(self, note: str) -> None:
        """Ends training, with the reason, if it is time."""
        state, patience = self.state, self.patience
        reason = f": {note}" if state.stale >= min(WORRY, patience or WORRY) else ""
        since = self.step // self.validate_every - state.best_step // self.validate_every
        if patience is not None and since >= patience:
            state.verdict = f"stopped early at step {self.step}{reason}"
        elif self._ended():
            state.verdict = f"ended after {self.step} steps{reason}"

    def _trained_rows(self) -> Batch:
        """Returns some training rows, always the same, as they are filled in now."""
        if self._some is None or self.filling is not None:
            split = self.dataset.split("train")
            rows = min(SOME, len(split))
            self._some = next(split.shuffled(rows, seed=self.seed, device=self.device))
        return self._some

    @property
    def seconds(self) -> float:
        """Seconds spent training: steps and data."""
        return self.clock.total("step") + self.clock.total("data")

    def _reported(self, event: Event) -> Iterator[Event]:
        with self.clock("report"):
            yield event

    @contextmanager
    def _located(self) -> Iterator[None]:
        """Names the step of what is not finite; a loss that broke before it is told instead."""
        try:
            yield
        except NonFinite as error:
            self._check(torch.tensor([float(loss) for loss in self.window]))
            raise NonFinite(f"step {self.step}: {error}; in {self._where()}; {ADVICE}") from error

    def _where(self) -> str:
        """Returns the layer at which the flow's numbers first cease to be finite."""
        batch = self._trained_rows()
        for flow in (self.flow, self.averaged):
            density = flow(batch.context)
            found = where_non_finite(density, density.flow.dequantize(batch.x))
            if "whose output" not in found:
                break
        return found

    def _average(self, ema: list[Tensor], current: list[Tensor], _: Tensor | int) -> None:
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(ema, current, 1 - decay)

    def _look_at_the_clock(self) -> None:
        costly = self.device.type == "cuda" or self.shard[1] > 1
        if costly and self.step % PACE:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if self.max_seconds is not None:
            self.state.timed = self.agreed(self.seconds) / self.max_seconds

    def _ended(self) -> bool:
        return self.progress >= 1

    def _due(self) -> bool:
        at = self._early() or self.step % self.validate_every == 0 or self._ended()
        return at and self.state.validated < self.step

    def _early(self) -> bool:
        """Whether a validation comes before the first of its interval: rows may be over-fitted."""
        step = self.step
        doubled = EARLY <= step < self.validate_every and step.bit_count() == 1
        return doubled and step * self.batch_size >= len(self.dataset.split("train"))

    def _check(self, losses: Tensor) -> None:
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = self.step - len(losses) + int(bad[0, 0])
            value = losses[bad[0, 0]]
            raise NonFinite(f"step {step}: found a loss of {value} in {self._where()}; {ADVICE}")

    def _log(self) -> Event:
        losses = _mean_over_workers(torch.stack(self.window))
        self._check(losses)
        state = self.state
        state.train_loss = float(losses.mean())
        if math.isnan(state.best.loss):
            state.best = replace(state.best, loss=state.train_loss)
        seconds = self.clock.lap("step") + self.clock.lap("data")
        count = len(losses)
        metrics = {
            "train/loss": state.train_loss,
            "train/lr": self.optimizer.param_groups[0]["lr"],
            "train/examples_per_s": count * self.batch_size / max(seconds, 1e-9),
            "time/step_ms": 1e3 * seconds / count,
        }
        metrics |= {f"train/{k}": v for k, v in self.watch(self._share).items()}
        if self.norms:
            metrics["train/grad_norm"] = float(torch.stack(self.norms).mean())
        if self.anchor is not None:
            metrics["anchor/refreshes"] = float(self.anchor.refreshes)
            metrics["anchor/drift"] = self.anchor.drift
        if self._latent is not None:
            stats = latent_statistics(self._latent, seed=self.seed)
            metrics |= {f"train/{name}": value for name, value in stats.items()}
        self.window, self.norms = [], []
        return Event("log", self.step, metrics)


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Takes the tensors of a prefix out of others; returns them without it."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _mean_over_workers(losses: Tensor) -> Tensor:
    """Returns the losses of the global batches, of which each worker has a part."""
    if not torch.distributed.is_initialized():
        return losses
    torch.distributed.all_reduce(losses)
    return losses / torch.distributed.get_world_size()
