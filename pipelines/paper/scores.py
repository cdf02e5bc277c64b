"""Score matching beside the *anchor*, a lazily refreshed normalizer, and alone, at equal seconds.

All networks have learned activations. *Alone*, no step computes a determinant, inverse or
factorization: the unnormalized density is trained, and the normalizer is that of the trained
matrices. That needs a start whose activations have no mean to undo; learned ones start as the
identity.
"""

from collections.abc import Iterator

from pipelines.config import AnchorConfig, Objective
from pipelines.config.recipes import mnist9k, mnist9k_dense
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment
from pipelines.paper.config import PaperConfig
from pipelines.paper.rivals import with_gains

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
