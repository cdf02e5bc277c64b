"""Score matching with learned activations, beside the anchor and alone, at equal seconds.

*Alone* no determinant, inverse or factorisation is computed at any step: what is trained is the
unnormalised density, and the normaliser is that of the trained matrices. It needs a start whose
activations have no mean to undo; learned ones start as the identity.
"""

from collections.abc import Iterator

from pipelines.config import ObjectiveConfig
from pipelines.config.recipes import mnist9k, mnist9k_dense
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import STEPS, Cell, Column, Experiment
from pipelines.paper.experiments.compared import measured, with_gains
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
    for net, activation, objective, normaliser in (
        (net, *way) for net, ways in WAYS.items() for way in ways
    ):
        alone = normaliser == "none"
        start = ALONE_START if alone else {}
        common = base(config, seed, "mnist", recipe=RECIPES[net], **bounds, **start)
        beside = {"sigma": ALONE} if alone else {"sigma": ANCHORED, "every": EVERY}
        flow = common.changed(
            model={"activation": ACTIVATIONS[activation], "hidden": None},
            objective=ObjectiveConfig.of(objective, **beside),
            anchor=PLAIN if alone else common.anchor,
        )
        labels = {"net": net, "f": activation, "objective": objective, "log Z": normaliser}
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
