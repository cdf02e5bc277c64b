"""Fitting a flow to data in memory, in one call.

Defaults are those of ``recipes``: a preprocessing that is fitted to the training rows, a flow that
starts near the Gaussian, likelihood with a lazily refreshed normalizer, averaged weights, the best
of them by validation, and early stopping.
"""

__all__ = ["LEAST", "fit"]

import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from . import mixtures, objectives, preprocessing
from .anchor import Anchor
from .architectures import ARCHITECTURES
from .bases import Base
from .bijections import Convolution
from .fit_options import bounds_by_index, check_device, check_options
from .flow import Flow
from .history import History
from .loss import Loss, LossFunction, balancing_weight, cosine, warmed
from .optimizers import adamw
from .preprocessing import Preprocessing
from .randomness import generator as derive
from .recipes import IMAGES, LIKELIHOOD, Recipe, recipe, refresh_rule
from .report import Report
from .tables import ArrayLike
from .tables.gathering import LEAST, gather
from .tables.rows import Arrays, Rows
from .train import Event, Trainer

Columns = Mapping[str | int, tuple[float | None, float | None]]

SEARCH_SECONDS, SEARCH_SHARE = 8.0, 0.25
"""Seconds of the search of a mixture without a limit, and its share of a time limit."""

WORTHWHILE = 0.1
"""The share of the time limit that has to be left for a second training."""


@torch.enable_grad()
def fit(
    x: ArrayLike,
    context: ArrayLike | Sequence[str] | None = None,
    *,
    validation: float | int | tuple[ArrayLike, ...] = 0.1,
    sample_weight: ArrayLike | None = None,
    flow: Flow | None = None,
    architecture: str | Callable[..., Flow] | None = None,
    options: dict[str, Any] | None = None,
    base: Base | None = None,
    normalize: str | None = None,
    shrinkage: float | None = None,
    marginals: bool = True,
    bounds: Columns | None = None,
    levels: int | None = None,
    missing: str | None = None,
    objective: str | objectives.Objective = "lazy_ml",
    loss: LossFunction | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    steps: int | None = None,
    max_seconds: float | None = None,
    batch_size: int | None = None,
    validate_every: int | None = None,
    patience: int | None = 8,
    seed: int = 0,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    progress: bool | None = None,
    callback: Callable[[Event], None] | None = None,
) -> Flow:
    """Returns a flow fitted to rows or images: the best of a training by validation NLL.

    Training stops at ``steps``, at ``max_seconds``, or after ``patience`` validations without
    improvement. If it becomes non-finite, it resumes once from the best flow with a quarter of the
    learning rate and other noise. ``flow.report`` says why training ended and what it reached;
    ``flow.history`` has the metrics of all events. A warning says what to change if training
    diverged or had no time. If no step improved on the start, the flow is its start: the Gaussian,
    or the mixture, behind the preprocessing. ``requires_grad`` of all parameters is False.

    Cost: O(D² L) for each row and step, and O(D³ L) for each refresh of the normalizer.

    Arguments:
        x: Rows with shape (N, D), or images with shape (N, C, H, W): a tensor, an array, or a
            frame of pandas, polars or Arrow. Columns of a frame may be numbers, booleans, text,
            categories or times; ``print(flow.columns)`` shows what is done to each. Integers of
            8 bits are dequantized, and mapped to the real line by a logit.
        context: The context of each row: an array with shape (N, C) or (N,), a frame, or a list
            of names of columns of ``x``, whose density is then that of the other columns. None:
            the density is unconditional.
        validation: The share, or the number, of rows that are held out at random; or these rows
            themselves, ``(x,)`` or ``(x, context)``.
        sample_weight: The weight of each row: a row of weight k counts as k equal rows. None: all
            weights are 1.
        flow: A flow to train in place. If it has no preprocessing, one is fitted and put before
            it. Parameters without ``requires_grad`` stay fixed, unless all are. None:
            ``architecture`` creates a flow.
        architecture: A name in ``architectures``, or a function like those; None: the default of
            ``recipes``. If the default is an autoregressive flow that stops early or diverges, a
            dense one is trained in the time that is left. The better one by validation is
            returned.
        options: Options of the architecture.
        base: The density of latents; None: N(0, I), or a mixture of Gaussians by the recipe.
        normalize: ``none``, ``standardize``, ``whiten``, ``cholesky`` or ``auto``; None: by the
            recipe.
        shrinkage: The share of the identity in the correlations that are whitened; None: the one
            that is best on held-out rows.
        marginals: Whether real columns on grids are dequantized, and bounds and tails of columns
            fitted: see ``ebflow.marginals``.
        bounds: Known bounds of real columns by name or index, None at an open end.
        levels: The number of integer levels of 8-bit data; None: 256.
        missing: How to treat rows with missing values (NaN): ``drop`` removes them; ``impute``
            samples the values, at first from a Gaussian of the columns' ranks, then repeatedly
            from the flow in training, a bounded number at a time. The validation rows without
            missing values decide when to stop; if there are fewer than 50, all are imputed once.
            None: such rows raise an error.
        objective: A name in ``objectives``, or a function like those. Score matching has the
            anchor beside it.
        loss: A loss instead of an objective: a function (density, x, generator, progress) to the
            losses of all rows and the evaluation behind them.
        optimizer: A function from parameters to an optimizer; None: Adam.
        lr: The learning rate of Adam; None: by the recipe.
        weight_decay: The weight decay of the networks inside layers; None: by the recipe.
        steps: Most steps. None: no limit if ``max_seconds`` is set, else twenty epochs, and at
            least 6,000 steps.
        max_seconds: Most seconds of the whole fit, preprocessing and validations included. The
            learning rate follows steps or seconds, whichever are nearer to their limit.
        batch_size: Rows of a step; None: by the recipe.
        validate_every: Steps between validations; None: a twentieth of ``steps``, at most 250.
            Few rows are validated after 16, 32, 64, … steps as well.
        patience: Validations of that interval without improvement before training stops; None:
            no limit.
        seed: The seed of all random numbers.
        generator: A generator that draws the seed.
        device: The device of the training; None: that of ``x``.
        dtype: The flow's floating-point type.
        progress: Whether to show a line of progress; None: on a terminal.
        callback: A function that is called with each event of the training.

    Raises:
        ValueError: if a value is not finite, no column varies, or shapes do not agree.
        TypeError: if a column holds something else.
        NonFinite: if the untrained flow has no finite likelihood.

    Example:
        >>> flow = ebflow.fit(x, steps=50, objective="dsm")
        >>> flow.log_prob(x).shape, flow.sample((10,)).shape
        (torch.Size([60]), torch.Size([10, 3]))
        >>> flow.report.ended in ("patience", "steps")
        True
    """
    check_options(
        steps=steps, batch_size=batch_size, validate_every=validate_every, max_seconds=max_seconds,
        lr=lr, weight_decay=weight_decay, shrinkage=shrinkage, architecture=architecture,
        objective=None if loss else objective, generator=generator, seed=seed, dtype=dtype,
        callback=callback,
    )  # fmt: skip
    check_device(device)
    if flow is not None and (options or base is not None):
        raise ValueError("options, base: found with a flow, expected neither")
    run = _Run(max_seconds, progress, callback)
    if generator is not None:
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    kind = dtype if flow is None else flow.dtype
    dataset, columns = gather(x, context, validation, levels, missing, seed, kind, sample_weight)
    train = dataset.split("train")
    names = columns.features if columns else None
    if flow is not None and flow.context != train.context_width:
        raise ValueError(
            f"context: found {train.context_width} elements, expected the flow's {flow.context}"
        )
    front = {"bounds": bounds_by_index(bounds or {}, names, train.width, train.levels),
             "names": names, "seed": seed, "dtype": kind}  # fmt: skip
    settings = {"normalize": normalize, "shrinkage": shrinkage, "lr": lr, "batch_size": batch_size,
                "weight_decay": weight_decay}  # fmt: skip

    def trained(architecture: str | Callable[..., Flow] | None, steps_done: int = 0) -> Trainer:
        """Trains the flow, or one of an architecture, behind a preprocessing of its own."""
        name = "dense" if flow else architecture if isinstance(architecture, str) else None
        plan = recipe(
            train.shape,
            rows=len(train) + len(dataset.split("validation")),
            levels=train.levels,
            context=train.context_width,
            objective="" if loss else _name(objective),
            architecture=name,
            options=options,
        )
        changed = {key: value for key, value in settings.items() if value is not None}
        plan = replace(plan, columns=marginals, **changed)
        model = flow
        if flow is None or not flow.n_preprocessing:
            chain = preprocessing.fit(train, **_front(plan), **front)
            if flow is None:
                latents = base or _base(plan, chain, dataset, seed, run.seconds_left)
                model = _created(architecture, plan, train, latents, seed, dtype)
            model = _behind(model, chain, train)
        _make_trainable(model, device or (x.device if isinstance(x, Tensor) else "cpu"))
        model.columns = columns
        decay = plan.weight_decay
        most = steps or (plan.steps if max_seconds is None else math.inf)
        trainer = Trainer(
            model,
            dataset,
            loss=loss or _loss(model.core, objective, seed),
            optimizer=optimizer or partial(adamw, model, lr=plan.lr, weight_decay=decay),
            schedule=warmed(cosine, plan.warmup),
            steps=most - steps_done,
            batch_size=min(plan.batch_size, len(train)),
            validate_every=validate_every or max(1, int(min(250, most // 20))),
            log_every=max(1, int(min(50, most // 20))),
            patience=patience,
            seed=seed,
        )
        run.train(trainer, plan)
        return trainer

    best, replaced = trained(architecture), False
    if flow is None and architecture is None and not options and run.may_try_dense(best):
        other = trained("dense", best.step)
        replaced = other.state.best.nll < best.state.best.nll
        best = other if replaced else best
    return run.finished(best, replaced)


class _Run:
    """The time, the events and the outcome of a fit, which may train twice.

    Arguments:
        max_seconds: Most seconds of the fit.
        progress: Whether to show a line of progress; None: on a terminal.
        callback: A function that is called with each event.
    """

    def __init__(
        self,
        max_seconds: float | None,
        progress: bool | None,
        callback: Callable[[Event], None] | None,
    ) -> None:
        self.max_seconds, self.started = max_seconds, time.perf_counter()
        self.shows = sys.stderr.isatty() if progress is None else progress
        self.callback = callback or (lambda event: None)
        self.trainings: list[tuple[Trainer, Recipe, History]] = []
        self.share = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the fit started."""
        return time.perf_counter() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the time limit; None: there is none."""
        return None if self.max_seconds is None else max(self.max_seconds - self.seconds, 1e-3)

    def train(self, trainer: Trainer, plan: Recipe) -> None:
        """Trains to the end, or until the user interrupts it."""
        history, nll = History(), math.nan
        self.trainings.append((trainer, plan, history))
        trainer.max_seconds = self.seconds_left
        try:
            for event in trainer.run():
                self.share = max(self.share, event.share)
                _record(history, event, plan.architecture)
                nll = event.metrics.get("val/nll", nll)
                self.callback(replace(event, share=self.share))
                self._show(
                    f"{self.share:4.0%} · step {event.step} · validation NLL {nll:.4f} nats"
                )
        except KeyboardInterrupt:
            trainer.state.ended = "interrupted"
            trainer.state.verdict = f"interrupted at step {trainer.step}"
        finally:
            state = trainer.state
            best = f"best validation NLL {state.best.nll:.4f} nats, at step {state.best_step}"
            self._show(f"{state.verdict.partition(':')[0]} · {best}", end="\n")

    def may_try_dense(self, trainer: Trainer) -> bool:
        """Returns whether a dense flow is worth a try after an autoregressive one."""
        autoregressive = trainer.flow.spec["architecture"] == "autoregressive"
        failed = trainer.state.ended in ("patience", "diverged")
        left = self.max_seconds is None or self.seconds_left > WORTHWHILE * self.max_seconds
        return autoregressive and failed and left and trainer.step < trainer.steps

    def finished(self, best: Trainer, replaced: bool) -> Flow:
        """Returns the flow of a training with its best weights, its report and the history."""
        best.load_best()
        flow = best.flow.eval().requires_grad_(False)
        others = [part for part in self.trainings if part[0] is not best]
        _, plan, history = next(part for part in self.trainings if part[0] is best)
        state, rows = best.state, len(best.dataset.split("train"))
        epochs = best.step * best.batch_size / rows
        notes = [*state.warnings, *_advice(best, epochs)]
        flow.history = History([row for other in others for row in other[2]] + history)
        flow.report = Report(
            ended=state.ended,
            reason=state.verdict,
            steps=best.step,
            epochs=epochs,
            best_step=state.best_step,
            nll=state.best.nll,
            seconds=self.seconds,
            architecture=(flow.spec or {}).get("architecture") or "",
            recipe=asdict(plan),
            replaced=replaced,
            warnings=notes,
        )
        for note in notes:
            warnings.warn(note, RuntimeWarning, stacklevel=4)
        metrics = {"val/nll": state.best.nll}
        self.callback(Event("end", best.step, metrics, text=str(flow.report), share=1.0))
        return flow

    def _show(self, text: str, end: str = "") -> None:
        if self.shows:
            line = f"{text} · {self.seconds:.1f} s"
            print(f"\r{line:<90}", end=end, file=sys.stderr, flush=True)


def _record(history: History, event: Event, architecture: str) -> None:
    """Adds an event to a history, or removes the events of steps that are void."""
    if event.kind == "resume":
        history[:] = [row for row in history if row["step"] <= event.step]
    else:
        history.append({"step": event.step, "kind": event.kind, "architecture": architecture,
                        **event.metrics})  # fmt: skip


def _advice(trainer: Trainer, epochs: float) -> list[str]:
    """Returns warnings about a training that ended badly."""
    state, advice = trainer.state, []
    if state.ended == "interrupted":
        advice.append(f"training was interrupted; the flow is the best by validation, of step "
                      f"{state.best_step}")  # fmt: skip
    elif state.best_step == 0:
        advice.append(
            f"no step of the training improved on its start beyond chance ({state.verdict}): the "
            "flow is its start, as the preprocessing and the base were fitted"
        )
    if state.ended == "seconds" and epochs < 1:
        advice.append(
            f"the time limit ended training after {epochs:.0%} of one pass over the rows: raise "
            "max_seconds, or fit fewer rows"
        )
    return advice


def _created(
    architecture: str | Callable[..., Flow] | None,
    plan: Recipe,
    train: Rows,
    base: Base | None,
    seed: int,
    dtype: torch.dtype,
) -> Flow:
    """Returns an untrained flow for the rows."""
    shape, shared = tuple(train.shape), {"context": train.context_width, "base": base}
    shared |= {"dtype": dtype, "generator": derive(seed, "weights")}
    if callable(architecture):
        return architecture(shape, **plan.options, **shared)
    create = ARCHITECTURES[plan.architecture]
    names = [name for name in signature(create).parameters if name not in ("shape", *shared)]
    for name in plan.options:
        if name not in names:
            raise ValueError(f"options: found {name!r}, expected some of {', '.join(names)}")
    event = (1, *shape) if plan.architecture in IMAGES and len(shape) == 2 else shape
    return create(event, **plan.options, **shared)


def _base(
    plan: Recipe, chain: Preprocessing, dataset: Arrays, seed: int, seconds: float | None
) -> Base | None:
    """Returns the mixture of Gaussians that is fitted behind the preprocessing, if asked for."""
    if plan.base != "mixture":
        return None
    splits = [dataset.split(name) for name in ("train", "validation")]
    rows, held_out = (
        mixtures.preprocessed_rows(chain, split, seed=seed)[:, split.context_width :]
        for split in splits
    )
    share = 1.0 if seconds is None else min(1.0, SEARCH_SHARE * seconds / SEARCH_SECONDS)
    budget = share * mixtures.BUDGET
    return mixtures.search(rows, held_out, seed=seed, budget=budget).mixture.trainable()


def _front(plan: Recipe) -> dict[str, Any]:
    """Returns the arguments of ``preprocessing.fit``."""
    return {"normalize": plan.normalize, "shrinkage": plan.shrinkage, "grids": plan.columns,
            "tails": plan.columns, "gaussianize": plan.gaussianize}  # fmt: skip


def _behind(flow: Flow, chain: Preprocessing, train: Rows) -> Flow:
    """Returns the flow behind its preprocessing, with standardized contexts."""
    if train.context is not None:
        context = train.context.double()
        flow.standardize_context(context.mean(0), context.std(0, correction=0))
    return flow.preprocessed(chain, shape=train.shape)


def _make_trainable(flow: Flow, device: str | torch.device) -> None:
    """Moves a flow to a device for training; a loaded flow requires gradients again."""
    flow.to(device).train()
    if not any(p.requires_grad for p in flow.parameters()):
        flow.requires_grad_()


def _loss(core: Flow, objective: str | objectives.Objective, seed: int) -> Loss:
    """Returns the loss of an objective, with an anchor beside score matching."""
    name = _name(objective)
    if isinstance(objective, str):
        objective = objectives.OBJECTIVES[objective]
    rule = refresh_rule(convolutions=any(isinstance(m, Convolution) for m in core.modules()))
    anchor = Anchor(core, **rule, check_every=5, seed=seed)
    if name == "lazy_ml":
        return Loss(partial(objective, anchor=anchor), anchor=anchor)
    if name in LIKELIHOOD:
        return Loss(objective)
    weight = balancing_weight(objective)
    return Loss(objective, weight, anchor=anchor, anchor_weight=1.0)


def _name(objective: str | objectives.Objective) -> str:
    """Returns the name of an objective, also of a partial function."""
    function = getattr(objective, "func", objective)
    return function if isinstance(function, str) else getattr(function, "__name__", "")
