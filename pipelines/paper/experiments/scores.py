"""Score matching beside the *anchor*, a lazily refreshed normalizer, and alone, at equal seconds.

First with learned activations. *Alone* no determinant, inverse or factorization is computed at any
step: what is trained is the unnormalized density, and the normalizer is that of the trained
matrices. It needs a start whose activations have no mean to undo; learned ones start as the
identity. Then, with smooth leaky ReLU, one option of the anchor or of the scores beside it is
changed at a time: the interval K of refreshes, the weight, the noise.
"""

from collections.abc import Iterator, Sequence

from pipelines.config import LIKELIHOOD, AnchorConfig, ObjectiveConfig
from pipelines.config.recipes import mnist9k, mnist9k_dense
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments import settings
from pipelines.paper.experiments.cell import STEPS, Cell, Column, Experiment, Folders, Row
from pipelines.paper.experiments.compared import drawn, measured, with_gains
from pipelines.paper.experiments.settings import EVERY, PLAIN, base

SECONDS = 100.0
LENGTH = 40_000
ANCHORED, ALONE = 0.1, 0.3
"""Noise of denoising score matching beside the anchor, and alone."""

ALONE_START = {"lr": 1e-3, "lr_width": 784, "warmup": 0.05}
"""Scores alone do not stand the rates of the likelihood: a large step may lose mass, which a
falling rate does not always bring back. Nets of fewer elements stand larger steps (experiment
``phases``): the rate is that of MNIST, and falls with the root of D."""

RECIPES = {"dense": mnist9k_dense, "conv": mnist9k}
ACTIVATIONS = {"spline": "spline", "leaky": "smooth_leaky_relu"}

BOTH = (
    ("spline", "lazy_ml", "lazy"),
    ("spline", "dsm", "lazy"),
    ("spline", "ssm_vr", "lazy"),
    ("spline", "dsm", "none"),
    ("spline", "ssm_vr", "none"),
)
WAYS = {"dense": (*BOTH, ("leaky", "ml", "exact")), "conv": BOTH}
"""Activation, objective, and what is known of log Z while it trains: ``lazy`` (the anchor, or the
lazy likelihood's own), ``exact``, or ``none``; by net."""

REFERENCE = dict(zip(("f", "objective", "log Z"), BOTH[0], strict=True))


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a net and way."""
    bounds = {"cpu": SECONDS, "full": LENGTH}
    for net, activation, objective, normalizer in (
        (net, *way) for net, ways in WAYS.items() for way in ways
    ):
        alone = normalizer == "none"
        start = ALONE_START if alone else {}
        common = base(config, seed, "mnist", recipe=RECIPES[net], **bounds, **start)
        beside = {"sigma": ALONE} if alone else {"sigma": ANCHORED, "every": EVERY}
        flow = common.changed(
            model={"activation": ACTIVATIONS[activation], "hidden": 0 if net == "conv" else None},
            objective=ObjectiveConfig.of(objective, **beside),
            anchor=PLAIN if alone else common.anchor,
        )
        labels = {"net": net, "f": activation, "objective": objective, "log Z": normalizer}
        yield Cell.of_flow(labels, flow)


SCORES = Experiment(
    about="score matching with learned activations for equal seconds: exact test NLL (nats)",
    legend="f: the activation, leaky is the published one; log Z lazy: an anchor beside the "
    f"scores, matched in one of {EVERY} steps, or the lazy likelihood itself; none: neither "
    "determinant nor inverse at any step; gain over lazy_ml of the same net, row by row; ±: 95 %, "
    "over seeds, or test rows of one seed",
    source="mnist",
    cells=cells,
    columns=(
        STEPS,
        Column("test/nll", "NLL", 1, "baseline/{}_nll", error="test/nll_se"),
        Column("gain", "gain", 2, error="gain_se"),
    ),
    rows=lambda cells, folders: with_gains(measured(cells, folders), REFERENCE, "net"),
)

VARIED_SECONDS = 40.0
USUAL = 100
"""Steps between refreshes at most, where no K is told and a drift brings them forward."""

NETS = {"dense": settings.NETS["FC"].changed(depth=2), "conv": settings.NETS["CNN"]}

CHANGES = {"interval": "K = {:g}", "weight": "w = {:g} σ²", "sigma": "σ = {:g}"}
"""What may be changed, and how it is told: K, the weight of matching scores over σ², and σ."""

SHORT = tuple((objective, {}) for objective in ("ml", "lazy_ml", "dsm", "ssm_vr"))
VARIED = {
    "dense": (
        *SHORT,
        ("relative_ml", {}),
        *(
            (objective, {"interval": k})
            for objective in ("lazy_ml", "dsm")
            for k in (20, 100, 500)
        ),
        *(("dsm", {"weight": weight}) for weight in (0.1, 10.0)),
        *(("dsm", {"sigma": sigma}) for sigma in (0.03, 0.3)),
    ),
    "conv": SHORT,
}
"""Objectives, and what is changed of each or of its anchor, by net."""


def varied(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a net and way, one option changed at a time."""
    bounds = {"cpu": VARIED_SECONDS, "full": LENGTH}
    for net, objective, changed in ((net, *way) for net, ways in VARIED.items() for way in ways):
        looks = 30 if objective == "ml" else 100
        common = base(config, seed, "mnist", lr=2e-3, validate_every=looks, **bounds)
        sigma, interval = changed.get("sigma", ANCHORED), changed.get("interval")
        weight = changed.get("weight", 1.0) * sigma**2 if objective == "dsm" else None
        flow = common.changed(
            model=NETS[net],
            objective=ObjectiveConfig.of(objective, sigma=sigma, weight=weight),
            anchor=AnchorConfig(interval=interval or USUAL, tolerance=None if interval else 0.2),
        )
        told = ", ".join(CHANGES[name].format(value) for name, value in changed.items())
        yield Cell.of_flow({"net": net, "objective": objective, "changed": told}, flow)


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a cell, with its curve and its gain over exact likelihood of the net."""
    found = [{**row, "end": row["curve"][-1][1]} for row in measured(cells, folders)]
    return with_gains(found, {"objective": "ml"}, "net")


def _place(net: str, objective: str, changed: str) -> tuple[str, str]:
    """Returns the panel and the line of a training in the figure."""
    kind = "likelihood" if objective in LIKELIHOOD else "scores"
    return f"dense, {kind}" if net == "dense" else net, f"{objective} {changed}"


ANCHOR = Experiment(
    about="the anchor's interval K, and weight w and noise σ of scores: exact test NLL (nats)",
    legend="K: steps between refreshes; at a drift, or after 100, where no K is told; scores are "
    "weighed by σ² = 0.01; end: validation NLL in the end, NLL: of the best net by it; gain over "
    "ml of the same net, row by row; ±: 95 %, over seeds, or test rows of one seed",
    source="mnist",
    cells=varied,
    columns=(
        STEPS,
        Column("end", "end", 1, interval=False),
        Column("test/nll", "NLL", 1, "baseline/{}_nll", error="test/nll_se"),
        Column("gain", "gain", 1, error="gain_se"),
    ),
    rows=rows,
    figures=lambda rows, folders: {"anchor": drawn(rows, _place)},
)
