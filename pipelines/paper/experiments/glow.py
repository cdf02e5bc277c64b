"""Glow on MNIST by score matching: likelihood and samples."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from ebflow.checkpoint import load
from ebflow.randomness import generator
from pipelines.config import (
    AnchorConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    StabiliseConfig,
)
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import Cell, Column, Experiment, Folders, Row, first_seed
from pipelines.paper.experiments.settings import IMAGE_OPTIONS, base
from pipelines.reporting.pictures import show_tiles
from pipelines.reporting.style import panels

LOW_ENERGY = 0.1 * 784
"""The weight 0.1 of the energy; the code's losses are divided by D and the term is not."""

PUBLISHED = {"ssm_vr": {"test/nll": 728.0}}
CPU = {"depth": 4, "hidden": 64}
"""A net that makes some thousand steps in minutes on two cores."""

STEPS = 80 * 500
SAMPLES = 36


def cells(config: PaperConfig) -> list[Cell]:
    """Returns the published settings by SSM and DSM, and the recipe's by the same and by ML."""
    return [
        cell
        for seed in config.trials
        for cell in (
            *(_paper(config, seed, objective) for objective in ("ssm_vr", "dsm")),
            *(_recipe(config, seed, objective) for objective in ("ssm_vr", "dsm", "ml")),
        )
    ]


def _base(config: PaperConfig, seed: int) -> DensityConfig:
    full = config.scale == "full"
    return base(config, seed, "mnist", cpu=200, full=STEPS).changed(
        model=ModelConfig(architecture="glow", **({} if full else CPU)),
        preprocess=PreprocessConfig(normalise="none"),
        train={"validate_every": 500 if full else 200},
    )


def _paper(config: PaperConfig, seed: int, objective: str) -> Cell:
    flow = _base(config, seed).changed(
        objective=ObjectiveConfig.of(objective, sigma=0.1),
        anchor=AnchorConfig(weight=0.0),
        stabilise=StabiliseConfig(low_energy=LOW_ENERGY),
        train={"lr": 1e-5, "schedule": "constant", "warmup": 0.0, "clip": 500.0 * 784},
    )
    published = PUBLISHED.get(objective, {}) if config.scale == "full" else {}
    return Cell.of_flow({"settings": "paper", "objective": objective}, flow, published=published)


def _recipe(config: PaperConfig, seed: int, objective: str) -> Cell:
    flow = _base(config, seed).changed(
        objective=ObjectiveConfig.of(objective, sigma=0.1),
        model={"activation": "swish"},
        train={"lr": 1e-3, "clip": 500.0},
    )
    return Cell.of_flow({"settings": "recipe", "objective": objective}, flow)


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns samples of the first seed's flows."""
    first = list(first_seed(rows, folders))
    figure, axes = panels(len(first), 2.4 * len(first), 3.1)
    for axis, (row, (trained, _)) in zip(axes, first, strict=True):
        flow = load(trained / "checkpoint")
        x = flow.sample(SAMPLES, generator=generator(0, "glow samples")).numpy()
        white = flow.spec["preprocessing"]["levels"] - 1
        show_tiles(axis, x / white, flow.spec["shape"])
        axis.set_title(f"{' '.join(row['labels'].values())}\n{row['test/nll']:.1f} nats")
    return {"samples": figure}


GLOW = Experiment(
    about="Glow: test NLL (nats) and samples",
    legend=f"below scale full a net of depth {CPU['depth']} and width {CPU['hidden']}, for which "
    "nothing was published",
    note="MNIST, at the paper's length of training",
    source="mnist",
    uses=IMAGE_OPTIONS,
    cells=cells,
    columns=(
        Column("train/steps", "steps", 0, interval=False),
        Column("train/steps_per_s", "steps/s", interval=False),
        Column("test/nll", "NLL", 1, "nll"),
    ),
    figures=figures,
)
