"""Score matching beside the *anchor*, a lazily refreshed normalizer, and alone, at equal seconds.

Two experiments. ``SCORES`` has learned activations. *Alone*, no step computes a determinant,
inverse or factorization: the unnormalized density is trained, and the normalizer is that of the
trained matrices. That needs a start whose activations have no mean to undo; learned ones start as
the identity. ``ANCHOR`` has smooth leaky ReLU, and changes one option of the anchor or of the
scores beside it at a time: the interval K of refreshes, the weight, the noise.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from pipelines.config import AnchorConfig, Objective, ScoreMatching
from pipelines.config.recipes import mnist9k, mnist9k_dense
from pipelines.paper import cell, table
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig
from pipelines.paper.rivals import curves, with_gains

LENGTH = 40_000
BESIDE_SIGMA, ALONE_SIGMA = 0.1, 0.3
"""Noise of denoising score matching beside the anchor, and alone."""

ALONE_START = {"lr": 1e-3, "lr_width": 784, "warmup": 0.05}
"""The rates of the likelihood are too large for scores alone: a large step may lose mass, and a
falling rate does not always bring it back. Smaller networks stand larger steps (experiment
``phases``): the rate is that of MNIST, and falls with the root of D."""

RECIPES = {"dense": mnist9k_dense, "conv": mnist9k}
ACTIVATIONS = {"spline": "spline", "leaky": "smooth_leaky_relu"}

WAYS = (
    ("spline", "lazy_ml", "lazy"),
    ("spline", "dsm", "lazy"),
    ("spline", "ssm_vr", "lazy"),
    ("spline", "dsm", "none"),
    ("spline", "ssm_vr", "none"),
)
"""Activation, objective and log Z during training. log Z is ``lazy`` (the anchor's, or the lazy
likelihood's own), ``exact`` or ``none``."""

PUBLISHED = ("leaky", "ml", "exact")
"""The published activation by exact likelihood, of dense layers alone."""


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per network and way."""
    ways = [*(("dense", *way) for way in (*WAYS, PUBLISHED)), *(("conv", *way) for way in WAYS)]
    for net, activation, objective, normalizer in ways:
        alone, uncoupled = normalizer == "none", {"hidden": 0} if net == "conv" else {}
        start = ALONE_START if alone else {}
        common = cell.base(
            config, seed, "mnist", cpu=100.0, full=LENGTH, recipe=RECIPES[net], **start
        )
        options = {"sigma": ALONE_SIGMA} if alone else {"sigma": BESIDE_SIGMA, "every": cell.EVERY}
        flow = common.changed(
            model={"activation": ACTIVATIONS[activation]} | uncoupled,
            objective=Objective.of(objective, **options),
            anchor=AnchorConfig(weight=0.0) if alone else common.anchor,
        )
        labels = {"net": net, "f": activation, "objective": objective, "log Z": normalizer}
        yield Cell.of_flow(labels, flow)


SCORES = Experiment(
    about="score matching with learned activations for equal seconds: exact test NLL (nats)",
    legend="f: the activation, leaky is the published one; log Z lazy: an anchor beside the "
    f"scores, matched in one of {cell.EVERY} steps, or the lazy likelihood itself; none: neither "
    "determinant nor inverse at any step; gain over lazy_ml of the same net, row by row; ±: 95 %, "
    "over seeds, or test rows of one seed",
    source="mnist",
    cells=cells,
    columns=(
        cell.STEPS,
        cell.NLL,
        Column("gain", "gain", 2),
    ),
    rows=lambda finished: with_gains(finished, {"objective": "lazy_ml"}, "net"),
)

USUAL = 100
"""Maximum number of steps between refreshes without a fixed K; a drift refreshes earlier."""

NETS = {"dense": table.NETS["FC"].changed(depth=2), "conv": table.NETS["CNN"]}

CHANGES = {"interval": "K = {:g}", "weight": "w = {:g} σ²", "sigma": "σ = {:g}"}
"""Options that change, and their labels: K, the weight of matching scores over σ², and σ."""

SHORT = tuple((objective, "", 0.0) for objective in ("ml", "lazy_ml", "dsm", "ssm_vr"))
VARIED = (
    *(("dense", *way) for way in (*SHORT, ("relative_ml", "", 0.0))),
    *(("dense", name, "interval", k) for name in ("lazy_ml", "dsm") for k in (20, 100, 500)),
    *(("dense", "dsm", "weight", weight) for weight in (0.1, 10.0)),
    *(("dense", "dsm", "sigma", sigma) for sigma in (0.03, 0.3)),
    *(("conv", *way) for way in SHORT),
)
"""Network, objective, and the option that changes, if any, with its value."""


def varied(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per network and way, with one option changed at a time."""
    common = partial(cell.base, config, seed, "mnist", cpu=40.0, full=LENGTH, lr=2e-3)
    for net, objective, option, value in VARIED:
        changed = {option: value}
        sigma, interval = changed.get("sigma", BESIDE_SIGMA), changed.get("interval")
        weight = changed.get("weight", 1.0) * sigma**2 if objective == "dsm" else None
        flow = common(validate_every=30 if objective == "ml" else 100).changed(
            model=NETS[net],
            objective=Objective.of(objective, sigma=sigma, weight=weight),
            anchor=AnchorConfig(interval=interval or USUAL, tolerance=None if interval else 0.2),
        )
        label = CHANGES[option].format(value) if option else ""
        yield Cell.of_flow({"net": net, "objective": objective, "changed": label}, flow)


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per cell, with its last validation and its gain over exact likelihood."""
    gains = with_gains(finished, {"objective": "ml"}, "net")
    return [{**row, "end": row["curve"][-1][1]} for row in gains]


def _place(net: str, objective: str, changed: str) -> tuple[str, str]:
    """Returns the panel and the line of a training in the figure."""
    matching = isinstance(Objective.of(objective), ScoreMatching)
    kind = "scores" if matching else "likelihood"
    return f"dense, {kind}" if net == "dense" else net, f"{objective} {changed}"


ANCHOR = Experiment(
    about="the anchor's interval K, and weight w and noise σ of scores: exact test NLL (nats)",
    legend="K: steps between refreshes; at a drift, or after 100, where no K is given; scores are "
    "weighed by σ² = 0.01; end: validation NLL in the end, NLL: of the best net by it; gain over "
    "ml of the same net, row by row; ±: 95 %, over seeds, or test rows of one seed",
    source="mnist",
    cells=varied,
    columns=(
        cell.STEPS,
        Column("end", "end", 1, interval=False),
        cell.NLL,
        Column("gain", "gain"),
    ),
    rows=rows,
    figures=lambda rows, finished: {"anchor": curves(rows, _place)},
)
