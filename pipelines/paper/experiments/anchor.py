"""What the lazily refreshed normaliser stands: its interval K, and the weight and noise of scores.

All nets train for the same seconds, one option changed at a time, with smooth leaky ReLU.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from pipelines.config import (
    LIKELIHOOD,
    AnchorConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
)
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import (
    STEPS,
    Cell,
    Column,
    Experiment,
    Folders,
    Row,
    first_seed,
)
from pipelines.paper.experiments.curves import Points, curve, drawn
from pipelines.paper.experiments.gains import measured, with_gains
from pipelines.paper.experiments.settings import IMAGE_OPTIONS, bounds, data

SECONDS, LENGTH = 40.0, 40_000
SIGMA = 0.1
NETS = {"dense": ModelConfig(depth=2), "conv": ModelConfig(architecture="convolutional")}


class Way(NamedTuple):
    """An objective, and what is changed of it or of its anchor.

    Attributes:
        objective: The objective.
        interval: K; None: the normaliser is refreshed at a drift, or after 100 steps.
        weight: That of matching scores over σ².
        sigma: σ.
    """

    objective: str
    interval: int | None = None
    weight: float = 1.0
    sigma: float = SIGMA

    @property
    def changes(self) -> str:
        """What is changed."""
        changes = {
            f"K = {self.interval}": self.interval,
            f"w = {self.weight:g} σ²": self.weight != 1,
            f"σ = {self.sigma:g}": self.sigma != SIGMA,
        }
        return ", ".join(text for text, changed in changes.items() if changed)


EXACT = Way("ml")
SHORT = (EXACT, Way("lazy_ml"), Way("dsm"), Way("ssm_vr"))
WAYS = {
    "dense": (
        *SHORT,
        Way("relative_ml"),
        *(Way(name, interval=k) for name in ("lazy_ml", "dsm") for k in (20, 100, 500)),
        *(Way("dsm", weight=weight) for weight in (0.1, 10.0)),
        *(Way("dsm", sigma=sigma) for sigma in (0.03, 0.3)),
    ),
    "conv": SHORT,
}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a net and way."""
    for net, ways in WAYS.items():
        for way in ways:
            labels = {"net": net, "objective": way.objective, "changed": way.changes}
            yield Cell.of_flow(labels, _flow(config, seed, net, way))


def _flow(config: PaperConfig, seed: int, net: str, way: Way) -> DensityConfig:
    limits = {"validate_every": 30 if way == EXACT else 100}
    limits |= bounds(config, cpu=SECONDS, full=LENGTH)
    weight = way.weight * way.sigma**2 if way.objective == "dsm" else None
    rule = {"interval": way.interval, "tolerance": None} if way.interval else {"tolerance": 0.2}
    return DensityConfig(
        seed=seed,
        data=data(config, "mnist"),
        preprocess=PreprocessConfig(shrinkage=1e-3),
        model=NETS[net],
        objective=ObjectiveConfig.of(way.objective, sigma=way.sigma, weight=weight),
        anchor=AnchorConfig(**rule),
        train=TrainConfig(batch_size=100, lr=2e-3, warmup=0.02, threads=config.threads, **limits),
    )


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a cell, with its curve and its gain over exact likelihood of the net."""
    found = [{**row, "curve": curve(folder[0])} for folder, row in measured(cells, folders)]
    gained = with_gains(found, lambda labels: labels["objective"] == EXACT.objective, "net")
    return [{**row, "end": row["curve"][-1][1]} for row in gained]


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns the first seed's best validation NLL against training seconds."""
    panels: dict[str, dict[str, Points]] = {
        "dense, likelihood": {}, "dense, scores": {}, "conv": {},
    }  # fmt: skip
    for (row,) in first_seed(rows):
        net, objective, changed = row["labels"].values()
        kind = f", {'likelihood' if objective in LIKELIHOOD else 'scores'}"
        panels[net + (kind if net == "dense" else "")][f"{objective} {changed}"] = row["curve"]
    return {"anchor": drawn(panels)}


ANCHOR = Experiment(
    about="the anchor's interval K, and weight w and noise σ of scores: exact test NLL (nats)",
    legend="K: steps between refreshes; at a drift, or after 100, where no K is told; scores are "
    "weighed by σ² = 0.01; end: validation NLL in the end, NLL: of the best net by it; gain over "
    "ml of the same net, row by row; ±: 95 %, over seeds, or test rows of one seed",
    source="mnist",
    uses=IMAGE_OPTIONS,
    cells=cells,
    columns=(
        STEPS,
        Column("end", "end", 1, interval=False),
        Column("test/nll", "NLL", 1, "nll", error="test/nll_se"),
        Column("gain", "gain", 1, error="gain_se"),
    ),
    rows=rows,
    figures=figures,
)
