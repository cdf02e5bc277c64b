"""Fitting a flow to data in memory, in one call.

Defaults are those of ``recipes``: a preprocessing that is fitted to the training rows, a flow that
starts near the Gaussian, likelihood with a lazily refreshed normalizer, averaged weights, the best
of them by validation, and an early stop.
"""

__all__ = ["LEAST", "fit"]

import numbers
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
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
from .flow import Flow
from .history import History
from .loss import Loss, LossFunction, balancing_weight, cosine, warmed
from .marginals import Bounds
from .optimizers import eager
from .preprocessing import Preprocessing
from .randomness import generator as derive
from .recipes import IMAGES, LIKELIHOOD, Recipe, recipe, refresh_rule
from .tables import ArrayLike, Arrays, Rows
from .tables.gathering import LEAST, gathered
from .train import Event, Trainer

COUNT = ValueError, lambda n: isinstance(n, numbers.Integral) and n >= 1, "a whole number above 0"

RULES: dict[str, tuple[type[Exception], Callable[[Any], bool], str]] = {
    "steps": COUNT,
    "batch_size": COUNT,
    "max_seconds": (ValueError, lambda s: s > 0, "above 0"),
    "shrinkage": (ValueError, lambda rho: 0 <= rho < 1, "at least 0 and below 1"),
    "objective": (
        ValueError,
        lambda name: not isinstance(name, str) or name in objectives.OBJECTIVES,
        f"one of {', '.join(objectives.OBJECTIVES)}",
    ),
    "generator": (TypeError, lambda g: isinstance(g, torch.Generator), "a torch.Generator"),
    "seed": (TypeError, lambda n: isinstance(n, numbers.Integral), "a whole number"),
    "dtype": (TypeError, lambda t: isinstance(t, torch.dtype), "a torch.dtype, as torch.float64"),
}
"""What options are, where they are told: what is raised otherwise, and what is expected."""


def fit(
    x: ArrayLike,
    context: ArrayLike | None = None,
    *,
    validation: float | int | tuple[ArrayLike, ...] = 0.1,
    flow: Flow | None = None,
    architecture: str | Callable[..., Flow] | None = None,
    options: dict[str, Any] | None = None,
    base: Base | None = None,
    normalize: str | None = None,
    shrinkage: float | None = None,
    marginals: bool = True,
    bounds: Mapping[str | int, tuple[float | None, float | None]] | None = None,
    levels: int | None = None,
    missing: str | None = None,
    objective: str | objectives.Objective = "lazy_ml",
    loss: LossFunction | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    steps: int = 6000,
    max_seconds: float | None = None,
    batch_size: int | None = None,
    validate_every: int | None = None,
    patience: int | None = 8,
    seed: int = 0,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    progress: bool | Callable[[float], None] | None = None,
) -> Flow:
    """Returns a flow fitted to rows or images: the best by validation NLL of a training.

    Training ends after ``steps``, ``max_seconds``, or ``patience`` validations without a better
    one. It never ends with nothing: where it becomes non-finite, it goes on from the best flow so
    far with a quarter of the learning rate, once; that flow is returned if it breaks again, or is
    interrupted. A warning says where and what to change. Its parameters ask for no gradient, as
    those of a loaded flow. Its ``history`` is a list of rows; its ``columns`` are
    the names and types of the data's columns.

    Cost: O(D² L) a row and step, and O(D³ L) at each refresh of the normalizer.

    Arguments:
        x: Rows with shape (N, D), or images with shape (N, C, H, W): a tensor, an array, a data
            frame, or a Series of one column. Integers of 8 bits are dequantized and carried to
            the real line by a logit.
        context: What each row is given, with shape (N, C) or (N,); columns that have names are
            found in frames by these. None: the density has none.
        validation: The share, or the number, of rows that are held out at random; or these rows
            themselves, ``(x,)`` or ``(x, context)``.
        flow: The flow whose layers are trained, in place; a preprocessing is fitted in front of
            them unless it has one, and the flow that is returned has it. Parameters that ask for
            no gradient stay, unless none asks for one. None: one is made by ``architecture``.
        architecture: A name in ``architectures``, or a function like those; None:
            ``convolutional`` for images, ``autoregressive`` for real rows of up to 64 columns
            where a likelihood is trained, ``dense`` for others. Where an autoregressive net
            over-fits and so ends early, ``dense`` is trained with what is left of the steps and
            seconds, and the better of both by validation is returned.
        options: Options of the architecture.
        base: The density of latents; None: N(0, I).
        normalize: ``none``, ``standardize`` or ``whiten``; None: ``whiten`` in front of a dense
            net, ``standardize`` in front of others, which make use of the columns' own axes.
        shrinkage: The share of the identity in the correlations that are whitened; None: what
            rows left out choose.
        marginals: Whether real columns on grids are dequantized by their step, and columns'
            bounds and tails fitted: see ``ebflow.marginals``.
        bounds: Bounds of real columns that are known, None where there is none, by name or index.
        levels: The number of integer levels of 8-bit data; None: 256.
        missing: What is done with rows that lack an entry (NaN): ``drop`` leaves them out,
            ``impute`` draws what is missing, at first from a Gaussian of the columns' ranks, then
            again and again from the flow that is being trained. Validation rows are completed
            once, by the Gaussian: their likelihood is a lower bound, up to a constant, of that of
            their observed entries. None: such rows are refused.
        objective: A name in ``objectives``, or a function like those. Score matching has the
            anchor beside it.
        loss: In place of an objective: a function (density, x, generator, progress) to the losses
            of all rows and the evaluation behind them.
        optimizer: From parameters to an optimizer; None: Adam of rate 1e-2 for those nets, of
            2e-3 for a dense one, less in more than 256 dimensions.
        steps: Optimizer steps at most.
        max_seconds: Seconds of steps and validations at most, without the fit of the
            preprocessing before them; the learning rate follows whichever bound is nearer.
        batch_size: Rows a step, all training rows if there are fewer; None: 256 for an
            autoregressive net, else 128.
        validate_every: Steps between validations; None: a twentieth of ``steps``, at most 250.
            Before the first of them there are others after 16, 32, 64, … steps, where these have
            seen all rows.
        patience: Validations of that interval without a better one before training stops; None:
            never.
        seed: Where all random numbers come from.
        generator: In place of a seed.
        device: Where to train; None: where ``x`` is.
        dtype: The flow's type.
        progress: Whether progress is shown; None: on a terminal. A function is told the share of
            a training that is done instead.

    Raises:
        ValueError: if the data are no rows of finite numbers, a column is constant, or shapes do
            not agree.
        TypeError: if the data are no numbers.
        NonFinite: if the untrained flow has no finite likelihood already.

    Example:
        >>> flow = ebflow.fit(x, steps=50, objective="dsm")
        >>> flow.log_prob(x).shape, flow.sample((10,)).shape
        (torch.Size([60]), torch.Size([10, 3]))
        >>> len([row for row in flow.history if row["kind"] == "validate"]) > 10
        True
    """
    given = {"batch_size": batch_size, "max_seconds": max_seconds, "shrinkage": shrinkage,
             "generator": generator, "objective": None if loss else objective}  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    _check(steps=steps, seed=seed, dtype=dtype, **given)
    _check_device(device)
    if isinstance(architecture, str) and architecture not in ARCHITECTURES:
        names = ", ".join(ARCHITECTURES)
        raise ValueError(f"architecture: found {architecture!r}, expected one of {names}")
    if generator is not None:
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    if flow is not None and (options or base is not None):
        raise ValueError("options, base: found with a flow, expected neither")
    kind = dtype if flow is None else flow.dtype
    dataset, columns = gathered(x, context, validation, levels, missing, seed, kind)
    train = dataset.split("train")
    rows = len(train) + len(dataset.split("validation"))
    data = {"rows": rows, "levels": train.levels, "context": train.context_width,
            "objective": "" if loss else _name(objective)}  # fmt: skip
    _check_context(flow, train)
    front = {"bounds": _indexed(bounds or {}, columns["names"], train), "names": columns["names"],
             "seed": seed}  # fmt: skip

    shown = _rising(progress) if callable(progress) else progress

    def trained(
        architecture: str | Callable[..., Flow] | None, steps: int, max_seconds: float | None
    ) -> Trainer:
        """Trains the flow, or one of an architecture, behind a preprocessing of its own."""
        named = "dense" if flow else architecture if isinstance(architecture, str) else None
        plan = recipe(train.shape, architecture=named, options=options, **data)
        chosen = {"normalize": normalize, "shrinkage": shrinkage, "batch_size": batch_size}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        plan = replace(plan, columns=marginals, **chosen)
        made = flow
        if flow is None or not flow.n_preprocessing:
            kind = dtype if flow is None else flow.dtype
            chain = preprocessing.fit(train, **_front(plan), **front, dtype=kind)
            if flow is None:
                latents = base or _base(plan, chain, dataset, seed)
                made = _made(architecture, plan, train, latents, seed, dtype)
            made = _behind(made, chain, train)
        _ready(made, columns, device or (x.device if isinstance(x, Tensor) else "cpu"))
        trainer = Trainer(
            made,
            dataset,
            loss=loss or _loss(made.core, objective, seed),
            optimizer=optimizer or partial(eager(torch.optim.Adam), lr=plan.lr, fused=True),
            schedule=warmed(cosine, plan.warmup),
            max_seconds=max_seconds,
            batch_size=min(plan.batch_size, len(train)),
            patience=patience,
            seed=seed,
            **_paced(steps, validate_every),
        )
        _run(trainer, _Progress(trainer, shown))
        return trainer

    best = trained(architecture, steps, max_seconds)
    default = flow is None and architecture is None and not options
    autoregressive = default and best.flow.spec["architecture"] == "autoregressive"
    if autoregressive and best.state.verdict.startswith("stopped early") and best.progress < 1:
        left = (steps - best.step, max_seconds and max_seconds - best.seconds)
        best = min(best, trained("dense", *left), key=lambda trainer: trainer.state.best.nll)
    if callable(shown):
        shown(1.0)
    return _result(best)


def _rising(progress: Callable[[float], None]) -> Callable[[float], None]:
    """Returns what is told no less than before, though a second training begins at 0."""
    highest = 0.0

    def shown(share: float) -> None:
        nonlocal highest
        highest = max(highest, share)
        progress(highest)

    return shown


def _check(**given: Any) -> None:  # noqa: ANN401
    """Raises ValueError or TypeError at an option that no training has."""
    for name, value in given.items():
        kind, right, expected = RULES[name]
        if not right(value):
            raise kind(f"{name}: found {value!r}, expected {expected}")


def _check_device(device: str | torch.device | None) -> None:
    """Raises ValueError at a device that torch does not know, or does not find."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device: found {device}, expected one of this machine, as cpu: {reason}"
        ) from error


def _run(trainer: Trainer, shown: "_Progress") -> None:
    """Runs a training, and writes its history on its flow."""
    trainer.flow.history = History()
    try:
        for event in trainer.run():
            _write(trainer.flow.history, event)
            shown(event)
    except KeyboardInterrupt:
        _warn(f"training was interrupted; the flow is the best by validation, of step "
              f"{trainer.state.best_step}")  # fmt: skip
    finally:
        shown.close()


def _result(trainer: Trainer) -> Flow:
    """Returns the flow of a training with the best averaged weights."""
    for message in trainer.state.warnings:
        _warn(message)
    trainer.load_best()
    return trainer.flow.eval().requires_grad_(False)


def _write(history: History, event: Event) -> None:
    """Writes an event down, or takes back what was told of steps that hold no more."""
    if event.kind == "resume":
        history[:] = [row for row in history if row["step"] <= event.step]
    else:
        history.append({"step": event.step, "kind": event.kind, **event.metrics})


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _made(
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
    make = ARCHITECTURES[plan.architecture]
    known = [name for name in signature(make).parameters if name not in ("shape", *shared)]
    for name in plan.options:
        if name not in known:
            raise ValueError(f"options: found {name!r}, expected some of {', '.join(known)}")
    event = (1, *shape) if plan.architecture in IMAGES and len(shape) == 2 else shape
    return make(event, **plan.options, **shared)


def _base(plan: Recipe, chain: Preprocessing, dataset: Arrays, seed: int) -> Base | None:
    """Returns the mixture of Gaussians that is fitted behind the preprocessing, if asked for."""
    if plan.base != "mixture":
        return None
    splits = [dataset.split(name) for name in ("train", "validation")]
    rows, held_out = (
        mixtures.preprocessed_rows(chain, split, seed=seed)[:, split.context_width :]
        for split in splits
    )
    return mixtures.search(rows, held_out, seed=seed).mixture.trainable()


def _indexed(
    bounds: Mapping[str | int, tuple[float | None, float | None]],
    names: list[str] | None,
    train: Rows,
) -> Bounds:
    """Returns bounds by the index of a column."""
    if not isinstance(bounds, Mapping):
        raise TypeError(f"bounds: found {bounds!r}, expected {{column: (lower, upper)}}")
    if bounds and train.levels is not None:
        raise ValueError("bounds: found some of integer data, expected none: levels are theirs")
    known = {name: k for k, name in enumerate(names or [])} | {k: k for k in range(train.width)}
    unknown = [name for name in bounds if name not in known]
    if unknown:
        expected = ", ".join(names or [f"0 … {train.width - 1}"])
        raise ValueError(f"bounds: found column {unknown[0]!r}, expected one of {expected}")
    return {known[name]: _ends(name, pair) for name, pair in bounds.items()}


def _ends(name: str | int, pair: Any) -> tuple[float | None, float | None]:  # noqa: ANN401
    """Returns a column's bounds; raises ValueError at what is no such pair."""
    ends = tuple(pair) if isinstance(pair, Iterable) else ()
    known = [end for end in ends if end is not None]
    if len(ends) != 2 or not all(isinstance(end, numbers.Real) and end == end for end in known):
        raise ValueError(
            f"bounds, column {name}: found {pair!r}, expected (lower, upper), numbers or None"
        )
    if len(known) == 2 and not known[0] < known[1]:
        raise ValueError(
            f"bounds, column {name}: found {known[0]} … {known[1]}, expected the lower one first"
        )
    return ends


def _front(plan: Recipe) -> dict[str, Any]:
    """Returns the arguments of ``preprocessing.fit``."""
    return {"normalize": plan.normalize, "shrinkage": plan.shrinkage, "grids": plan.columns,
            "tails": plan.columns, "gaussianize": plan.gaussianize}  # fmt: skip


def _check_context(flow: Flow | None, train: Rows) -> None:
    """Raises ValueError if the flow has another context than the rows."""
    if flow is not None and flow.context != train.context_width:
        raise ValueError(
            f"context: found {train.context_width} elements, expected the flow's {flow.context}"
        )


def _behind(flow: Flow, chain: Preprocessing, train: Rows) -> Flow:
    """Returns the flow behind its preprocessing, with standardized contexts."""
    if train.context is not None:
        context = train.context.double()
        flow.standardize_context(context.mean(0), context.std(0, correction=0))
    return flow.preprocessed(chain, shape=train.shape)


def _ready(flow: Flow, columns: dict[str, Any], device: str | torch.device) -> None:
    """Lets a flow be trained on a device; one that was loaded asks for gradients again."""
    flow.to(device).train()
    if not any(p.requires_grad for p in flow.parameters()):
        flow.requires_grad_()
    flow.columns = columns


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
    given = getattr(objective, "func", objective)
    return given if isinstance(given, str) else getattr(given, "__name__", "")


def _paced(steps: int, validate_every: int | None) -> dict[str, int]:
    """Returns the steps of a training, and those between what it tells."""
    return {
        "steps": steps,
        "validate_every": validate_every or max(1, min(250, steps // 20)),
        "log_every": max(1, min(50, steps // 20)),
    }


class _Progress:
    """One line on a terminal, written over at every event; or what is told the share."""

    def __init__(self, trainer: Trainer, shown: bool | Callable[[float], None] | None) -> None:
        self.trainer = trainer
        self.shown = sys.stderr.isatty() if shown is None else shown
        self.nll = float("nan")

    def __call__(self, event: Event) -> None:
        self.nll = event.metrics.get("val/nll", self.nll)
        share = min(1.0, self.trainer.progress)
        if callable(self.shown):
            self.shown(share)
        self._show(f"{share:4.0%} · step {event.step} · validation NLL {self.nll:.4f} nats")

    def close(self) -> None:
        """Leaves the line with how training ended."""
        state = self.trainer.state
        ended = state.verdict.partition(":")[0] or f"interrupted at step {state.step}"
        best = f"best validation NLL {state.best.nll:.4f} nats, of step {state.best_step}"
        self._show(f"{ended} · {best}", end="\n")

    def _show(self, text: str, end: str = "") -> None:
        if self.shown is True:
            line = f"{text} · {self.trainer.seconds:.1f} s"
            print(f"\r{line:<90}", end=end, file=sys.stderr, flush=True)
