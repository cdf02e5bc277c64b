"""Glow on MNIST by score matching: likelihood and samples."""

from collections.abc import Iterator, Sequence

from ebflow.checkpoint import load
from ebflow.randomness import generator
from pipelines.config import ModelConfig, ObjectiveConfig
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments import cell
from pipelines.paper.experiments.cell import Cell, Experiment, Folders, Row
from pipelines.paper.experiments.settings import PLAIN, RAW, base
from pipelines.reporting.pictures import show_tiles
from pipelines.reporting.style import Captioned, panels

LOW_ENERGY = 0.1 * 784
"""The weight 0.1 of the energy; the code's losses are divided by D and the term is not."""

PUBLISHED = {("paper", "ssm_vr"): {"test/nll": 728.0}}
CPU = {"depth": 4, "hidden": 64}
"""A net that makes some thousand steps in minutes on two cores."""

LENGTH = 80 * 500
"""Steps at scale ``full``."""

SAMPLES = 36


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the published settings by SSM and DSM, and the recipe's by the same and by ML."""
    full = config.scale == "full"
    looks, size = (500, {}) if full else (200, CPU)
    common = base(config, seed, "mnist", cpu=200, full=LENGTH).changed(
        model=ModelConfig(architecture="glow", **size),
        preprocess=RAW,
        train={"validate_every": looks},
    )
    paper = common.changed(
        anchor=PLAIN,
        stabilise={"low_energy": LOW_ENERGY},
        train={"lr": 1e-5, "schedule": "constant", "warmup": 0.0, "clip": 500.0 * 784},
    )
    recipe = common.changed(model={"activation": "swish"}, train={"lr": 1e-3, "clip": 500.0})
    flows = {"paper": (paper, ("ssm_vr", "dsm")), "recipe": (recipe, ("ssm_vr", "dsm", "ml"))}
    for settings, (flow, objectives) in flows.items():
        for name in objectives:
            trained = flow.changed(objective=ObjectiveConfig.of(name, sigma=0.1))
            known = PUBLISHED.get((settings, name), {}) if full else {}
            yield Cell.of_flow({"settings": settings, "objective": name}, trained, published=known)


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Captioned]:
    """Returns samples of the first seed's flows."""
    first = list(cell.first_seed(rows, folders))
    figure, axes = panels(len(first), 2.4 * len(first), 3.1)
    for axis, (row, (trained, _)) in zip(axes, first, strict=True):
        flow = load(trained / "checkpoint")
        x = flow().sample_tensor(SAMPLES, generator=generator(0, "glow samples")).numpy()
        white = flow.spec["preprocessing"]["levels"] - 1
        show_tiles(axis, x / white, flow.spec["shape"])
        axis.set_title(f"{' '.join(row['labels'].values())}\n{row['test/nll']:.1f} nats")
    return {"samples": (figure, "Of the first seed's flows; their test NLL.")}


GLOW = Experiment(
    about="Glow: test NLL (nats) and samples",
    legend=f"below scale full a net of depth {CPU['depth']} and width {CPU['hidden']}, for which "
    "nothing was published",
    note="MNIST, at the paper's length of training",
    source="mnist",
    cells=cells,
    columns=(cell.STEPS, cell.STEPS_PER_S, cell.NLL),
    figures=figures,
)
