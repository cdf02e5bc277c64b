"""What the lazily refreshed normaliser stands: its interval K, and the weight and noise of scores.

All nets train for the same seconds, one option changed at a time, with smooth leaky ReLU.
"""

from collections.abc import Iterator, Sequence

from pipelines.config import LIKELIHOOD, AnchorConfig, ModelConfig, ObjectiveConfig
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import STEPS, Cell, Column, Experiment, Folders, Row
from pipelines.paper.experiments.compared import drawn, measured, with_gains
from pipelines.paper.experiments.settings import base

SECONDS, LENGTH = 40.0, 40_000
SIGMA = 0.1
USUAL = 100
"""Steps between refreshes at most, where no K is told and a drift brings them forward."""

NETS = {"dense": ModelConfig(depth=2), "conv": ModelConfig(architecture="convolutional")}

CHANGES = {"interval": "K = {:g}", "weight": "w = {:g} σ²", "sigma": "σ = {:g}"}
"""What may be changed, and how it is told: K, the weight of matching scores over σ², and σ."""

SHORT = tuple((objective, {}) for objective in ("ml", "lazy_ml", "dsm", "ssm_vr"))
WAYS = {
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


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a net and way."""
    bounds = {"cpu": SECONDS, "full": LENGTH}
    ways = ((net, *way) for net, ways in WAYS.items() for way in ways)
    for net, objective, changed in ways:
        looks = 30 if objective == "ml" else 100
        common = base(config, seed, "mnist", lr=2e-3, validate_every=looks, **bounds)
        sigma, interval = changed.get("sigma", SIGMA), changed.get("interval")
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
    cells=cells,
    columns=(
        STEPS,
        Column("end", "end", 1, interval=False),
        Column("test/nll", "NLL", 1, "baseline/{}_nll", error="test/nll_se"),
        Column("gain", "gain", 1, error="gain_se"),
    ),
    rows=rows,
    figures=lambda rows, folders: {"anchor": drawn(rows, _place)},
)
