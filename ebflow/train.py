"""Training of a flow: steps, validations, averaged weights and early stopping.

Batches, noise and probes are functions of (seed, step), so that a call gives the same bits again.
``pipelines.training`` adds what clusters need: shards, mixed precision, and a training that
resumes from its checkpoint.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .anchor import Anchor
from .bijections import Cells
from .errors import NonFinite
from .evaluation import Likelihood, Validation, diagnose, evaluate, latent_statistics, log_probs
from .flow import Flow
from .history import Event
from .imputation import TrainingImputer
from .loss import LossFunction, LossModule, Progress, Schedule, cosine
from .randomness import RowGenerator, normal
from .tables.batches import Batch, Split
from .tables.completion import Completed
from .tables.rows import sampled

EARLY = 16  # Steps before the first validation of few rows; the next ones: 32, 64, …
WORRY = 3  # Validations without improvement after which an event has the reason
ROWS = 1000  # Rows at a time in a validation
VALIDATED = 10_000  # Most rows of a validation
BATCHES, FEW = 40, 500  # Most batches of a validation of more rows: a tenth of 250 steps
SOME = 250  # Validation rows whose latents, and training rows whose likelihood, are reported
RELIEF = 0.25  # Factor of the learning rate after a training became non-finite
CERTAIN = 2.0  # Standard errors, of paired differences, by which the best must beat the start
ADVICE = "lower the learning rate (lr), clip the gradient, raise the noise, or train in float64"


@dataclass
class State:
    """The progress of a training, without its tensors."""

    step: int = 0  #: Steps done
    timed: float = 0.0  #: The share of the time limit that is used up; 0 without a limit
    best: Validation = field(default_factory=Validation)  #: Better than the start beyond chance
    best_step: int = 0
    lowest: float = math.inf  #: The lowest validation NLL
    lowest_step: int = 0
    stale: int = 0  #: Validations since the lowest one
    validated: int = -1  #: The step of the last validation
    train_loss: float = math.nan  #: The last mean loss
    ended: str = ""  #: As in the ``Report``; empty before
    verdict: str = ""  #: The ``reason`` of the ``Report``
    relief: float = 1.0  #: Factor of the learning rate, below 1 once a training was non-finite
    warnings: list[str] = field(default_factory=list)  #: Numbers not finite, and the remedies


class Trainer:
    """Creates the training of a flow on a data set; a subclass may override the public methods.

    Arguments:
        flow: The flow, preprocessing included; its trainable parameters are trained in place.
        dataset: Data with splits ``train`` and ``validation``. Missing entries of a ``Completed``
            training split are sampled again as training proceeds.
        loss: The loss; it gets the core of the flow.
        steps: The number of steps; ``math.inf``: no limit.
        max_seconds: Seconds of the whole training, validations included; as in ``ebflow.fit``.
        smoothing: Standard deviation of noise on preprocessed rows at the start, except on
            categories with exact probabilities: those of other flows are noisy, too. It falls
            with the fourth power of the remaining training.
        ema_decay: The average's decay d, used as min(d, (1 + t)/(10 + t)) at update t.
        validate_every: Steps between validations. Before the first of them, and after the first
            epoch, there are others at steps 16, 32, 64, …: few rows are over-fitted soon.
        patience: As in ``ebflow.fit``.
        retry: True if a training that becomes non-finite resumes once from its best validation,
            with a quarter of the learning rate and other noise. If it becomes non-finite again,
            it ends there. False: it raises.
    """

    def __init__(
        self,
        flow: Flow,
        dataset: Any,  # noqa: ANN401
        *,
        loss: LossFunction,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Schedule = cosine,
        steps: float = 1000,
        max_seconds: float | None = None,
        batch_size: int = 100,
        smoothing: float = 0.0,
        ema_decay: float = 0.999,
        validate_every: int = 500,
        patience: int | None = None,
        log_every: int = 50,
        retry: bool = True,
        seed: int = 0,
    ) -> None:
        self.flow, self.dataset, self.seed = flow, dataset, seed
        self.device = flow.device
        self.batch_size, self.steps, self.max_seconds = batch_size, steps, max_seconds
        self.schedule, self.ema_decay, self.retry = schedule, ema_decay, retry
        self.validate_every, self.patience, self.log_every = validate_every, patience, log_every
        self.smoothing = smoothing * _is_real(flow) if smoothing else None
        self._initialize()
        core = flow.core
        self.loss, self.anchor = loss, getattr(loss, "anchor", None)
        self.plain = LossModule(core, loss)
        averages = copy.deepcopy(core)
        self.averaged = flow.with_core(averages).eval()
        self.module = self.wrapped(self.plain)
        self._weights = [[*module.parameters()] for module in (averages, core)]
        self._buffers = [*zip(averages.buffers(), core.buffers(), strict=True)]
        self.optimizer = optimizer([p for p in flow.parameters() if p.requires_grad])
        groups = self.optimizer.param_groups
        self.parameters = [p for group in groups for p in group["params"]]
        self.rates = [group["lr"] for group in groups]
        split = dataset.split("train")
        filled = {"batch_size": batch_size, "seed": seed, "device": self.device}
        self.imputer = TrainingImputer(split, **filled) if isinstance(split, Completed) else None
        self.state, self.window = State(), list[Tensor]()
        self.best: Any = None
        self.started = time.perf_counter()
        self._validation_seconds = 0.0
        self.first_log_probs: Tensor | None = None
        self._some: Batch | None = None

    @property
    def step(self) -> int:
        """The number of steps done."""
        return self.state.step

    @property
    def parts(self) -> dict[str, Anchor | TrainingImputer]:
        """The parts of the training that have tensors of their own."""
        parts = {"anchor": self.anchor, "missing": self.imputer}
        return {name: part for name, part in parts.items() if part is not None}

    @cached_property
    def held_out(self) -> Split:
        """The rows of each validation: all, or random ones, equal for all seeds."""
        most = min(VALIDATED, max(FEW, BATCHES * self.batch_size))
        return sampled(self.dataset.split("validation"), most, 0, "validation")

    @property
    def held_out_noise(self) -> RowGenerator | None:
        """The dequantization noise of validations."""
        # One place in cells is cheap, but would be overfitted if equal rows had the same.
        table = isinstance(self.flow.dequantizer, Cells)
        return RowGenerator(self.seed, "validate") if table else None

    @property
    def progress(self) -> float:
        """The share of training that is done, by steps or seconds, whichever is more."""
        return max(self.state.step / self.steps, self.state.timed)

    @property
    def seconds(self) -> float:
        """Seconds since training started."""
        return time.perf_counter() - self.started

    def run(self) -> Iterator[Event]:
        """Yields events until training ends; ``state.verdict`` then has the reason.

        Raises:
            NonFinite: if a loss or a validation is not finite, naming the step; with
                ``retry`` only before the first validation.
        """
        self.started = time.perf_counter()
        while not self.state.verdict:
            try:
                yield from self._steps()
            except NonFinite as error:
                if self.best is None:
                    raise
                yield self._recovered(error)

    def _steps(self) -> Iterator[Event]:
        batches = self.batches()
        while True:
            if self._due():
                yield self.validate()
            if self.state.verdict:
                return
            self.fill()
            self.train_step(next(batches))
            if self.step % self.log_every == 0 or self.progress >= 1:
                yield self.log()

    def _recovered(self, error: NonFinite) -> Event:
        """Returns to the best validation, with a lower learning rate the first time."""
        state, again = self.state, self.state.relief == 1
        action = "resumes with a quarter of the learning rate" if again else "ends"
        note = f"{error}; training went back to step {state.best_step}, its best, and {action}"
        self.restore(self.best)
        verdict = "" if again else f"became non-finite twice, the last time at {error}"
        self.state = replace(
            self.state, timed=state.timed, relief=RELIEF, warnings=[*state.warnings, note],
            ended="" if again else "diverged", verdict=verdict,
        )  # fmt: skip
        return self._event("resume", {}, note=note)

    def agreed(self, value: float) -> float:
        """Returns one value on all workers; here there is one."""
        return value

    def wrapped(self, module: LossModule) -> nn.Module:
        """Returns the module that computes losses."""
        return module

    def batches(self) -> Iterator[Batch]:
        """Returns random batches of training rows, from the present step on."""
        split = self.dataset.split("train")
        return split.shuffled(self.batch_size, seed=self.seed, start=self.step, device=self.device)

    def rate_factor(self) -> float:
        """Returns the factor of the learning rate at the present step."""
        return self.state.relief * self.schedule(self.progress)

    def train_step(self, batch: Batch) -> None:
        """Does one step on raw rows with shape (B, D)."""
        factor = self.rate_factor()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        with self.located():
            loss = self.backward(batch)
        self.optimizer.step()
        self._average()
        self.window.append(loss)
        self.state.step += 1
        self.look_at_the_clock()

    def backward(self, batch: Batch) -> Tensor:
        """Computes the gradient of the mean loss of a batch; returns the loss."""
        noise = self.noise("train")
        y = self.preprocessed(batch.x, noise)
        progress = Progress(self.step, min(self.progress, 1.0))
        losses, _ = self.module(y, batch.context, noise, progress)
        loss = losses.mean()
        loss.backward(inputs=self.parameters)
        return loss.detach()

    @torch.no_grad()
    def preprocessed(self, x: Tensor, noise: RowGenerator, first: int = 0) -> Tensor:
        """Returns raw rows (B, *event) as a step sees them: preprocessed, and smoothed by noise.

        ``first`` is the number of the first row in the batch of all workers.
        """
        y = self.flow.preprocess(x, generator=noise)
        if self.smoothing is None:
            return y
        scale = self.smoothing * (1 - min(self.progress, 1.0)) ** 4
        return y + scale * normal(y.shape, y, self.noise("smoothing", first))

    def noise(self, purpose: str, first: int = 0) -> RowGenerator:
        """Returns the random numbers of the present step, other ones after a retry."""
        path = (purpose,) if self.state.relief == 1 else (purpose, "retry")
        return RowGenerator(self.seed, *path, self.step, first=first)

    def fill(self) -> None:
        """Samples missing entries of training rows from the averaged weights, if it is time."""
        if self.imputer is not None and self.imputer.due(self.step):
            with self.located():
                self.imputer.resample(self.averaged, self.step)

    def log(self) -> Event:
        """Returns the mean loss since the last log event, and the learning rate."""
        losses = torch.stack(self.window)
        self._check(losses)
        state = self.state
        state.train_loss = float(losses.mean())
        if math.isnan(state.best.loss):
            state.best = replace(state.best, loss=state.train_loss)
        rate = self.optimizer.param_groups[0]["lr"]
        metrics = {"train/loss": state.train_loss, "train/lr": rate}
        self.window = []
        return self._event("log", metrics)

    def look_at_the_clock(self) -> None:
        """Updates the share of the time limit, one more validation included."""
        if self.max_seconds is not None:
            self.state.timed = (self.seconds + self._validation_seconds) / self.max_seconds

    def snapshot(self) -> Any:  # noqa: ANN401
        """Returns a copy of everything that changes during training."""
        return copy.deepcopy({
            "flow": self.flow.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "window": self.window,
            "state": self.state,
            **{name: part.state() for name, part in self.parts.items()},
        })  # fmt: skip

    def restore(self, snapshot: Any) -> None:  # noqa: ANN401
        """Restores a snapshot, which stays as it is."""
        saved = copy.deepcopy(snapshot)
        self.flow.load_state_dict(saved["flow"])
        self.averaged.load_state_dict(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.window, self.state = saved["window"], saved["state"]
        for name, part in self.parts.items():
            part.load(saved[name])

    def load_best(self) -> float:
        """Gives the flow the best averaged weights; returns their NLL on all validation rows."""
        if self.best is not None:
            self.flow.load_state_dict(self.best["averaged"])
        split = self.dataset.split("validation")
        if self.held_out is split:
            return self.state.best.nll
        try:
            return evaluate(self.flow, split, batch_size=ROWS, generator=self.held_out_noise).nll
        except (NonFinite, KeyboardInterrupt) as error:
            self.state.warnings.append(
                f"the NLL is that of {len(self.held_out)} of {len(split)} validation rows "
                f"({error or 'interrupted'})"
            )
            return self.state.best.nll

    def validate(self) -> Event:
        """Returns the averaged weights' NLL, by one sample of noise, and statistics of latents."""
        began = self.seconds
        with self.located(), torch.no_grad():
            flow, split, noise = self.averaged, self.held_out, self.held_out_noise
            each = log_probs(flow, split, batch_size=ROWS, generator=noise)
            result = Likelihood.of(each, math.prod(flow.event_shape))
            x, context = next(iter(split.batches(SOME))).to(self.device)
            latent = latent_statistics(flow.to_latent(x, context=context), seed=self.seed)
            x, context = self._trained_rows()
            train_nll = -float(flow.log_prob(x, context=context, generator=noise).mean())
        now = Validation(self.agreed(result.nll), train_nll, self.state.train_loss)
        best = self._counted(now, each)
        self._validation_seconds = self.seconds - began
        self.look_at_the_clock()
        matching = self.anchor is None or bool(self.loss.anchor_weight)
        note = diagnose(now, self.state.best, latent, matching=matching)
        self._judge(note)
        if best and self.retry:
            self.best = self.snapshot()
        metrics = {"val/nll": now.nll, "val/bpd": result.bpd, "train/nll": train_nll, **latent,
                   "time/train_s": self.seconds}  # fmt: skip
        worried = self.state.stale >= WORRY
        return self._event("validate", metrics, best=best, note=note if worried else "")

    def _counted(self, now: Validation, log_probs: Tensor) -> bool:
        """Takes a validation into account; returns True if it is the best so far."""
        state = self.state
        if self.first_log_probs is None:
            self.first_log_probs = log_probs
        gain = log_probs - self.first_log_probs
        error = float(gain.std()) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
        certain = state.validated < 0 or float(gain.mean()) > CERTAIN * error
        state.validated, state.stale = self.step, state.stale + 1
        if now.nll < state.lowest:
            state.lowest, state.lowest_step, state.stale = now.nll, self.step, 0
        best = now.nll < state.best.nll and bool(self.agreed(certain))
        if best:
            state.best, state.best_step = now, self.step
        return best

    def _judge(self, note: str) -> None:
        """Ends training, with the reason, if it is time."""
        state, patience = self.state, self.patience
        reason = f": {note}" if state.stale >= min(WORRY, patience or WORRY) else ""
        since = self.step // self.validate_every - state.lowest_step // self.validate_every
        if patience is not None and since >= patience:
            state.ended, state.verdict = "patience", f"stopped early at step {self.step}{reason}"
        elif self.step >= self.steps:
            state.ended, state.verdict = "steps", f"ended after {self.step} steps{reason}"
        elif self.progress >= 1:
            of = f" of {self.steps:,}" if self.steps < math.inf else ""
            done = f"{round(self.max_seconds, 1):g} s (step {self.step:,}{of})"
            state.ended, state.verdict = "seconds", f"stopped after {done}{reason}"

    def _due(self) -> bool:
        step, early = self.step, False
        if EARLY <= step < self.validate_every and step.bit_count() == 1:
            early = step * self.batch_size >= len(self.dataset.split("train"))
        due = early or step % self.validate_every == 0 or self.progress >= 1
        return due and self.state.validated < step

    def _trained_rows(self) -> Batch:
        """Returns some training rows, always the same, with their present imputations."""
        if self._some is None or self.imputer is not None:
            self._some = self.dataset.split("train").some(SOME, self.seed).to(self.device)
        return self._some

    def _event(self, kind: str, metrics: dict[str, float], **more: Any) -> Event:  # noqa: ANN401
        share = 1.0 if self.state.verdict else min(1.0, self.progress)
        return Event(kind, self.step, metrics, share=share, **more)

    def _initialize(self) -> None:
        """Shows the first batch to layers that start from data."""
        if not self.flow.initialized:
            split = self.dataset.split("train")
            batches = split.shuffled(self.batch_size, seed=self.seed, device=self.device)
            x, context = next(batches)
            noise = RowGenerator(self.seed, "initialize")
            self.flow.initialize(x, generator=noise, context=context)

    @torch.no_grad()
    def _average(self) -> None:
        """Updates the averaged weights; PyTorch's ``AveragedModel`` would wait for a GPU."""
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step)) if self.step else 0.0
        torch._foreach_lerp_(*self._weights, 1 - decay)
        for average, buffer in self._buffers:
            average.copy_(buffer)

    @contextmanager
    def located(self) -> Iterator[None]:
        """Adds the step to an error, or reports an earlier loss in its place."""
        try:
            yield
        except NonFinite as error:
            self._check(torch.tensor([float(loss) for loss in self.window]))
            raise NonFinite(f"step {self.step}: {error}; {ADVICE}") from error

    def _check(self, losses: Tensor) -> None:
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            first = int(bad[0, 0])
            step = self.step - len(losses) + first
            raise NonFinite(f"step {step}: found a loss of {losses[first]}; {ADVICE}")


def _is_real(flow: Flow) -> Tensor:
    """Returns 1 for elements of preprocessed rows, 0 for those with exact probabilities."""
    options = (flow.spec or {}).get("options", {})
    if "values" in options:  # levels of pixels
        return torch.zeros((), dtype=flow.dtype, device=flow.device)
    sizes = options.get("categories") or [0]
    return torch.tensor([float(not size) for size in sizes], dtype=flow.dtype, device=flow.device)
