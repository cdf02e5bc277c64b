"""Fitting a flow to data in memory, in one call.

Defaults are those of ``recipes``: a preprocessing fitted to the training rows, a flow that starts
near the Gaussian, and likelihood with a lazily refreshed normalizer. Weights are averaged, the
best by validation is returned, and training stops early.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from .errors import warn
from .evaluation import log_probs
from .fit_settings import CHOSEN, OBJECTIVE, Settings, bounds_by_index
from .flow import Flow
from .history import Event, History, Report, expected_nll
from .loss import Loss, LossFunction, adamw, balancing_weight, cosine, warmed
from .marginals import Bounds
from .preprocessing import Preprocessing
from .randomness import generator as derive
from .recipes import IMAGES, LIKELIHOOD, MANY_COLUMNS, Recipe, recipe, refresh_rule
from .tables import ArrayLike, Columns
from .tables.gathering import gather
from .tables.rows import Arrays, Rows
from .threads import limited_threads
from .train import ROWS, Trainer

SEARCH_SECONDS = 8.0  # Seconds of the search of a mixture without a time limit
SEARCH_LEAST, SEARCH_SHARE = 2.5, 0.15  # Seconds of it, and the share of a time limit on top
SEARCH_MOST = 0.7  # Its largest share of a time limit
EPOCHS = 10  # Most passes over the rows between two validations
HALFWAY = 0.4  # The share of a training after which a better start of another flow may end it
WORTHWHILE = 0.1  # The share of the time limit that has to be left for a second training


@torch.inference_mode(False)
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
    bounds: Mapping[str | int, tuple[float | None, float | None]] | None = None,
    levels: int | None = None,
    missing: str | None = "impute",
    objective: str | objectives.Objective = OBJECTIVE,
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
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    progress: bool | None = None,
    callback: Callable[[Event], None] | None = None,
) -> Flow:
    """Returns a flow fitted to rows or images: the best of a training by validation NLL.

    Training stops at ``steps``, at ``max_seconds``, or after ``patience`` validations without
    improvement. If it becomes non-finite, it resumes once from the best flow with a quarter of the
    learning rate and other noise. If no step improved on the start, the flow is its start: the
    Gaussian, or the mixture, behind the preprocessing.

    ``flow.report`` has the reason why training ended, and what it reached. ``flow.history`` has
    the metrics of all events. Warnings name what to change. All parameters are frozen.

    Cost: O(D² L) for each row and step, and O(D³ L) for each refresh of the normalizer. Rows of
    less than 400 elements are fitted by one thread of torch, because small products do not gain
    from more. The process's number of threads is restored at the end.

    Arguments:
        x: A table, or images with shape (N, C, H, W). A table is a frame of pandas, polars or
            Arrow, a dictionary, or an array (N, K). ``print(flow.columns)`` shows what is done to
            each column. A tensor (N, D) is no table: all of its columns are modelled, as numbers.
            Images of 8 bits are dequantized, as are rows if ``levels`` is set.
        context: The context of each row: an array with shape (N, C) or (N,), or a frame. Or a list
            of names of columns of ``x``: the density is then that of the other columns. None: it
            is unconditional.
        validation: The share, or the number, of rows that are held out at random; or these rows
            themselves, ``(x,)`` or ``(x, context)``. At most 10,000 random ones choose the step.
        sample_weight: The weight of each row: a row of weight k counts as k equal rows. None: all
            weights are 1.
        flow: A flow to train in place. If it has no preprocessing, one is fitted and put before
            it; else it retains its preprocessing and its columns. Parameters without
            ``requires_grad`` stay fixed, unless all are. None: ``architecture`` creates a flow.
        architecture: A name in ``architectures``, or a function like those; None: the default of
            ``recipes``. If this is an autoregressive flow that stops early or diverges, a dense
            one above a mixture is trained in the remaining time, and the better one is returned.
        base: The density of latents; None: N(0, I), or a mixture of Gaussians by the recipe.
        normalize: ``none``, ``standardize``, ``whiten``, ``cholesky`` or ``auto``; None: by the
            recipe.
        shrinkage: The share of the identity in the correlations that are whitened; None: the one
            that is best on held-out rows.
        marginals: True to dequantize real columns on grids, and to fit bounds and tails of
            columns: see ``ebflow.marginals``.
        bounds: Known bounds of columns of numbers or times by name or index, None at an open end.
        levels: The number of integer levels of 8-bit data; None: 256.
        missing: How to treat rows with missing values (NaN): ``impute`` samples the values anew in
            training, ``drop`` removes such rows. None: they raise an error. So do missing
            contexts, but for ``drop``.
        objective: A name in ``objectives``, or a function like those. Score matching has the
            anchor beside it.
        loss: A loss instead of an objective: a function (density, x, generator, progress) to the
            losses of all rows and the evaluation behind them.
        optimizer: A function from parameters to an optimizer; None: Adam.
        lr: The learning rate of Adam; None: by the recipe.
        weight_decay: The weight decay of the networks inside layers; None: by the recipe.
        steps: Most steps. None: no limit if ``max_seconds`` is set, else twenty epochs, and at
            least 6,000 steps.
        max_seconds: Most seconds of the whole fit, preprocessing and validations included, but
            for a last pass over all of many validation rows. The learning rate follows
            steps or seconds, whichever are nearer to their limit.
        batch_size: Rows of a step; None: by the recipe.
        validate_every: Steps between validations; None: a twentieth of ``steps``, at most 250 and
            ten epochs. Few rows are validated after 16, 32, 64, … steps as well.
        patience: Validations of that interval without improvement before training stops; None:
            no limit.
        device: The device of the training; None: that of ``x``.
        progress: True to show a line of progress; None: on a terminal.
        callback: A function that is called with each event of the training.

    Raises:
        ValueError: if a value is not finite, no column varies, shapes do not agree, or one setting
            makes another useless.
        TypeError: if a column holds something else.
        NonFinite: if the untrained flow has no finite likelihood.

    Example:
        >>> flow = ebflow.fit(x, steps=50, objective="dsm")
        >>> flow.log_prob(x).shape, flow.sample((10,)).shape
        (torch.Size([60]), torch.Size([10, 3]))
        >>> flow.report.ended in ("patience", "steps")
        True
    """
    settings = Settings(**locals())
    with limited_threads() as choose_threads:
        return _fitted(settings, choose_threads)


def _fitted(settings: Settings, choose_threads: Callable[[int], None]) -> Flow:
    """Returns the flow that ``fit`` returns."""
    x, flow, run = settings.x, settings.flow, _Run(settings)
    dataset, columns = gather(
        x,
        settings.context,
        settings.validation,
        settings.levels,
        settings.missing,
        settings.seed,
        settings.dtype,
        settings.sample_weight,
        run.effort,
        known=flow.columns if flow else None,
    )
    train = dataset.split("train")
    choose_threads(train.width)
    if flow is not None and flow.context != train.context_width:
        raise ValueError(
            f"context: found {train.context_width} elements, expected the flow's {flow.context}"
        )
    table = columns or Columns.of_numbers(map(str, range(train.width)))
    bounds = bounds_by_index(settings.bounds or {}, table, train.levels)
    device = settings.device or (x.device if isinstance(x, Tensor) else "cpu")
    trainings = _Trainings(settings, dataset, columns, bounds, device, run)
    free = flow is None and settings.architecture is None and not settings.options
    choice = free and not any(train.categories)
    start, rival = trainings.flow(), trainings.plan(None).rival
    wide = trainings.flow(rival) if choice and rival and train.width >= MANY_COLUMNS else None
    best, replaced = trainings.train(flow=start, rival=wide), False
    if choice and run.may_try_wide(best):
        other = trainings.second(best, wide)
        replaced = other.state.best.nll < best.state.best.nll
        best = other if replaced else best
    return run.finished(best, replaced)


@dataclass(frozen=True)
class _Trainings:
    """The trainings of one fit, which share its settings, its data and its time."""

    settings: Settings
    dataset: Arrays
    columns: Columns | None
    bounds: Bounds
    device: str | torch.device
    run: "_Run"

    def train(
        self,
        name: str | None = None,
        steps_done: int = 0,
        flow: Flow | None = None,
        rival: Flow | None = None,
    ) -> Trainer:
        """Trains a flow, or else the one of ``flow(name)``, to the end.

        If it will end behind an untrained ``rival``, training stops early.
        """
        plan, flow = self.plan(name), (flow or self.flow(name)).to(self.device).train()
        if not any(p.requires_grad for p in flow.parameters()):
            flow.requires_grad_()  # those of a loaded flow are fixed
        flow.columns = flow.columns if self.columns is None else self.columns
        trainer = self.trainer(flow, plan, steps_done)
        self.run.train(trainer, plan, rival)
        return trainer

    def second(self, first: Trainer, wide: Flow | None) -> Trainer:
        """Trains a flow above a mixture; returns the first one if it is interrupted before."""
        try:
            return self.train("wide", first.step, wide)
        except KeyboardInterrupt:
            _interrupt(first)
            return first

    @property
    def rows(self) -> Rows:
        """The training rows."""
        return self.dataset.split("train")

    def plan(self, name: str | None) -> Recipe:
        """Returns a named recipe, or the one for the data, with the user's settings in it."""
        settings, rows = self.settings, self.rows
        known = settings.architecture if isinstance(settings.architecture, str) else None
        own = settings.base or settings.normalize or callable(settings.architecture)
        plan = recipe(
            rows.shape,
            rows=len(rows) + len(self.dataset.split("validation")),
            levels=rows.levels,
            context=rows.context_width,
            categories=any(rows.categories),
            objective="" if settings.loss else _name(settings.objective),
            architecture="dense" if settings.flow else known,
            options=settings.options,
            pixels=not own and settings.shrinkage is None,
            seconds=settings.max_seconds,
            name=name,
        )
        chosen = {name: getattr(settings, name) for name in CHOSEN}
        changed = {name: value for name, value in chosen.items() if value is not None}
        return replace(plan, columns=settings.marginals, **changed)

    def flow(self, name: str | None = None) -> Flow:
        """Returns the user's flow, or an untrained one of a named recipe or of the default one.

        It comes after a preprocessing that is fitted to the rows.
        """
        settings, rows, flow = self.settings, self.rows, self.settings.flow
        plan = self.plan(name)
        if flow is not None and flow.n_preprocessing:
            return flow
        likely = _name(settings.objective) in LIKELIHOOD and not (flow or settings.loss)
        exact = likely and not settings.base and not callable(settings.architecture)
        transforms = preprocessing.fit(
            rows, normalize=plan.normalize, shrinkage=plan.shrinkage, grids=plan.columns,
            tails=plan.columns, exact=exact and plan.exact_categories,
            pixels=likely and plan.architecture == "pixelcnn", bounds=self.bounds,
            gaussianize=plan.gaussianize, names=self.columns.features if self.columns else None,
            seed=settings.seed, dtype=settings.dtype,
        )  # fmt: skip
        if flow is None:
            base = settings.base or self.base(plan, transforms)
            options = {**plan.options, **transforms.architecture_options}
            flow = _created(settings, replace(plan, options=options), rows, base)
        if rows.context is not None:
            context = rows.context.double()
            flow.standardize_context(context.mean(0), context.std(0, correction=0))
        return flow.preprocessed(transforms, shape=rows.shape)

    def base(self, plan: Recipe, transforms: Preprocessing) -> Base | None:
        """Returns the mixture of Gaussians after the preprocessing, if the recipe has one."""
        if plan.base != "mixture":
            return None
        seed, budget = self.settings.seed, self.run.search_effort * mixtures.BUDGET
        rows, held_out = (
            mixtures.preprocessed_rows(transforms, split, seed=seed)[:, split.context_width :]
            for split in (self.rows, self.dataset.split("validation"))
        )
        options = {"budget": budget, "starts": mixtures.STARTS}
        return mixtures.fit_mixture(rows, held_out, seed=seed, **options).trainable()

    def trainer(self, flow: Flow, plan: Recipe, steps_done: int) -> Trainer:
        """Returns the trainer of a flow, whose steps come on top of those that are done."""
        settings = self.settings
        optimizer = partial(adamw, flow, lr=plan.lr, weight_decay=plan.weight_decay)
        most = settings.steps or (plan.steps if settings.max_seconds is None else math.inf)
        batch_size = min(plan.batch_size, len(self.rows))
        interval = min(250, most // 20, EPOCHS * len(self.rows) // batch_size)
        return Trainer(
            flow,
            self.dataset,
            loss=settings.loss or _loss(flow.core, settings.objective, settings.seed),
            optimizer=settings.optimizer or optimizer,
            schedule=warmed(cosine, plan.warmup),
            steps=max(most - steps_done, 1),
            batch_size=batch_size,
            smoothing=plan.smoothing,
            validate_every=settings.validate_every or max(1, int(interval)),
            log_every=max(1, int(min(50, most // 20))),
            patience=settings.patience,
            seed=settings.seed,
        )


class _Run:
    """The time, the events and the outcome of a fit, which may train twice."""

    def __init__(self, settings: Settings) -> None:
        self.max_seconds, self.started = settings.max_seconds, time.perf_counter()
        self.shows = sys.stderr.isatty() if settings.progress is None else settings.progress
        self.callback = settings.callback or (lambda event: None)
        self.trainings: list[tuple[Trainer, Recipe, History]] = []
        self.share, self.rival_nll = 0.0, math.inf

    @property
    def seconds(self) -> float:
        """Seconds since the fit started."""
        return time.perf_counter() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the time limit; None: there is none."""
        return None if self.max_seconds is None else max(self.max_seconds - self.seconds, 1e-3)

    @property
    def effort(self) -> float:
        """The share of the usual operations of a first estimate that the time limit leaves."""
        left = self.seconds_left
        return 1.0 if left is None else min(1.0, SEARCH_SHARE * left / SEARCH_SECONDS)

    @property
    def search_effort(self) -> float:
        """The share of the usual operations of a search of a mixture that the limit leaves."""
        if (left := self.seconds_left) is None:
            return 1.0
        most = SEARCH_MOST * left / SEARCH_SECONDS
        return min(1.0, self.effort + SEARCH_LEAST / SEARCH_SECONDS, most)

    def train(self, trainer: Trainer, plan: Recipe, rival: Flow | None) -> None:
        """Trains to the end, or until the user interrupts it, or it will be behind the rival."""
        history, nll, self.rival_nll = History(), math.nan, math.inf
        if rival is not None:
            noise = {"batch_size": ROWS, "generator": trainer.held_out_noise}
            self.rival_nll = -float(log_probs(rival, trainer.held_out, **noise).mean())
        if self.trainings:
            trainer.held_out = self.trainings[0][0].held_out  # the same rows judge both
        self.trainings.append((trainer, plan, history))
        trainer.max_seconds = self.seconds_left
        try:
            for event in trainer.run():
                self.share = max(self.share, event.share)
                history.record(event, plan.architecture)
                nll = event.metrics.get("val/nll", nll)
                self.callback(replace(event, share=self.share))
                done = f"{self.share:4.0%} · step {event.step}"
                self._show(f"{done} · validation NLL {nll:.4f} nats")
                if event.kind == "validate" and self.is_behind(trainer, history, event.share):
                    trainer.state.ended = "behind"
                    trainer.state.verdict = f"behind a mixture of Gaussians at step {trainer.step}"
                    break
        except KeyboardInterrupt:
            _interrupt(trainer)
        finally:
            state = trainer.state
            best = f"best validation NLL {state.best.nll:.4f} nats, at step {state.best_step}"
            self._show(f"{state.verdict.partition(':')[0]} · {best}", end="\n")

    def is_behind(self, trainer: Trainer, history: History, share: float) -> bool:
        """Returns True if a training is behind its rival, and will be at the end."""
        if share < HALFWAY or trainer.state.best.nll <= self.rival_nll:
            return False
        return expected_nll(history, share) > self.rival_nll

    def may_try_wide(self, trainer: Trainer) -> bool:
        """Returns True if a flow above a mixture is worth a try after an autoregressive one."""
        ended, architecture = trainer.state.ended, trainer.flow.spec["architecture"]
        if architecture != "autoregressive" or ended == "interrupted":
            return False
        if trainer.state.best.nll > self.rival_nll:
            return True
        failed = ended in ("patience", "diverged", "behind")
        left = self.max_seconds is None or self.seconds_left > WORTHWHILE * self.max_seconds
        return failed and left and trainer.step < trainer.steps

    def finished(self, best: Trainer, replaced: bool) -> Flow:
        """Returns the flow of a training with its best weights, its report and the history."""
        nll, held_out = best.load_best(), best.held_out
        flow = best.flow.eval().requires_grad_(False)
        trainings = sorted(self.trainings, key=lambda training: training[0] is best)
        plan, state = trainings[-1][1], best.state
        epochs = best.step * best.batch_size / len(best.dataset.split("train"))
        notes = [*state.warnings, *([] if replaced else _advice(best, epochs))]
        if any(trainer.state.ended == "interrupted" for trainer, *_ in trainings):
            notes.append(f"interrupted: the flow is the best one, of step {state.best_step}")
        flow.history = History(row for *_, history in trainings for row in history)
        flow.report = Report(
            ended=state.ended,
            reason=state.verdict,
            steps=best.step,
            epochs=epochs,
            best_step=state.best_step,
            nll=nll,
            chosen_by=0 if held_out is best.dataset.split("validation") else len(held_out),
            seconds=self.seconds,
            architecture=(flow.spec or {}).get("architecture") or "",
            recipe=asdict(plan),
            replaced=replaced,
            warnings=notes,
        )
        for note in notes:
            warn(note)
        metrics = {"val/nll": nll}
        self.callback(Event("end", best.step, metrics, text=str(flow.report), share=1.0))
        return flow

    def _show(self, text: str, end: str = "") -> None:
        if self.shows:
            line = f"{text} · {self.seconds:.1f} s"
            print(f"\r{line:<90}", end=end, file=sys.stderr, flush=True)


def _interrupt(trainer: Trainer) -> None:
    state = trainer.state
    state.ended, state.verdict = "interrupted", f"interrupted at step {trainer.step}"


def _advice(trainer: Trainer, epochs: float) -> list[str]:
    """Returns warnings about a training that ended badly."""
    state, advice = trainer.state, []
    if state.best_step == 0 and state.ended != "interrupted":
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


def _created(settings: Settings, plan: Recipe, rows: Rows, base: Base | None) -> Flow:
    """Returns an untrained flow of an architecture for rows."""
    shape, shared = tuple(rows.shape), {"context": rows.context_width, "base": base}
    shared |= {"dtype": settings.dtype, "generator": derive(settings.seed, "weights")}
    if callable(settings.architecture):
        return settings.architecture(shape, **plan.options, **shared)
    create = ARCHITECTURES[plan.architecture]
    names = [name for name in signature(create).parameters if name not in ("shape", *shared)]
    for name in plan.options:
        if name not in names:
            raise ValueError(f"options: found {name!r}, expected some of {', '.join(names)}")
    event = (1, *shape) if plan.architecture in IMAGES and len(shape) == 2 else shape
    return create(event, **plan.options, **shared)


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
    return Loss(objective, balancing_weight(objective), anchor=anchor, anchor_weight=1.0)


def _name(objective: str | objectives.Objective) -> str:
    """Returns the name of an objective, also of a partial function."""
    function = getattr(objective, "func", objective)
    return function if isinstance(function, str) else getattr(function, "__name__", "")
