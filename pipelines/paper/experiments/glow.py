"""Glow on MNIST by score matching: likelihood and samples."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from ebflow.checkpoint import load
from ebflow.randomness import generator
from pipelines.config import (
    AnchorConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    StabiliseConfig,
)
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import (
    NLL,
    STEPS,
    STEPS_PER_S,
    Cell,
    Experiment,
    Folders,
    Row,
    first_seed,
)
from pipelines.paper.experiments.settings import IMAGE_OPTIONS, base
from pipelines.reporting.pictures import show_tiles
from pipelines.reporting.style import panels

LOW_ENERGY = 0.1 * 784
"""The weight 0.1 of the energy; the code's losses are divided by D and the term is not."""

PUBLISHED = {"ssm_vr": {"test/nll": 728.0}}
CPU = {"depth": 4, "hidden": 64}
"""A net that makes some thousand steps in minutes on two cores."""

LENGTH = 80 * 500
"""Steps at scale ``full``."""

SAMPLES = 36


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the published settings by SSM and DSM, and the recipe's by the same and by ML."""
    full = config.scale == "full"
    common = base(config, seed, "mnist", cpu=200, full=LENGTH).changed(
        model=ModelConfig(architecture="glow", **({} if full else CPU)),
        preprocess=PreprocessConfig(normalise="none"),
        train={"validate_every": 500 if full else 200},
    )
    for objective in ("ssm_vr", "dsm"):
        flow = common.changed(
            objective=ObjectiveConfig.of(objective, sigma=0.1),
            anchor=AnchorConfig(weight=0.0),
            stabilise=StabiliseConfig(low_energy=LOW_ENERGY),
            train={"lr": 1e-5, "schedule": "constant", "warmup": 0.0, "clip": 500.0 * 784},
        )
        known = PUBLISHED.get(objective, {}) if full else {}
        yield Cell.of_flow({"settings": "paper", "objective": objective}, flow, published=known)
    for objective in ("ssm_vr", "dsm", "ml"):
        flow = common.changed(
            objective=ObjectiveConfig.of(objective, sigma=0.1),
            model={"activation": "swish"},
            train={"lr": 1e-3, "clip": 500.0},
        )
        yield Cell.of_flow({"settings": "recipe", "objective": objective}, flow)


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
    columns=(STEPS, STEPS_PER_S, NLL),
    figures=figures,
)
