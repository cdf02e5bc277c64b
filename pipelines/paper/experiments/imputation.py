"""Imputation: missing strokes of photographs, filled in by dense flows."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.config import DensityConfig
from pipelines.paper.config import ImputeConfig, PaperConfig
from pipelines.paper.experiments import cell, settings
from pipelines.paper.experiments.cell import Cell, Column, Experiment, Folders, Row
from pipelines.reporting.pictures import tiles
from pipelines.reporting.style import Captioned, panels

LOW_ENERGY = 0.001 * 64 * 64
"""The weight 0.001 of the energy on STL-10, carried over as that on CIFAR-10."""

EPOCHS, ROWS = 500, 5_000
SHOWN = 12
SIZES = {
    "smoke": {"images": SHOWN, "draws": 2, "steps": 50},
    "cpu": {},
    "full": {"images": 100},
}
"""What is imputed, by scale, where it is not the stage's default."""

CHAINS = {"adaptive": "paper's", "langevin": "Langevin", "momentum": "momentum"}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the published settings, and the recipe by anchored DSM and by likelihood."""
    measure = ImputeConfig(seed=seed, threads=config.threads, **SIZES[config.scale])
    common = _base(config, seed, 10)
    paper = settings.published(common, "FC", "dsm", "colour", ROWS // 10).changed(
        train={"augment": common.train.augment},
        stabilise={"low_energy": LOW_ENERGY} if config.scale == "full" else {},
    )
    yield Cell.of_flow({"flow": "paper dsm"}, paper, measure=measure)
    common = _base(config, seed, 100)
    for objective in ("dsm", "lazy_ml"):
        flow = settings.recipe(common, "FC", objective)
        flow = flow.changed(model=settings.NETS["FC"].changed(depth=2), train={"lr": 5e-4})
        yield Cell.of_flow({"flow": f"recipe {objective}"}, flow, measure=measure)


def _base(config: PaperConfig, seed: int, batch_size: int) -> DensityConfig:
    """Returns the experiment's data, and 500 epochs of them or what the scale allows."""
    full, epoch = config.scale == "full", ROWS // batch_size
    source, augment = ("stl10", "stl10") if full else ("natural-patches", "none")
    train = {"batch_size": batch_size, "augment": augment, "validate_every": epoch}
    return settings.base(config, seed, source, cpu=90, full=EPOCHS * epoch, **train)


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Captioned]:
    """Returns the first test images, what is missing, and what the first seed puts there."""
    pairs = cell.first_seed(rows, folders)
    found = [(row, dict(np.load(measured / "arrays.npz"))) for row, (_, measured) in pairs]
    first = found[0][1]
    black, white = first["range"]
    seen = np.where(first["missing"], (black + white) / 2, first["truth"])
    shown = [("truth", first["truth"]), ("seen", seen), ("Gaussian", first["gaussian"])]
    for row, arrays in found:
        name = " ".join(row["labels"].values())
        shown += [(f"{name}\n{chain}", arrays[key]) for key, chain in CHAINS.items()]
    figure, axes = panels(1, 10, 0.68 * len(shown), down=len(shown))
    for axis, (name, images) in zip(axes, shown, strict=True):
        scaled = (images[:SHOWN] - black) / (white - black)
        axis.imshow(tiles(scaled, tuple(first["shape"]), SHOWN), cmap="gray", vmin=0, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return {"imputations": (figure, "The first test images; draws of the first seed's flows.")}


IMPUTATION = Experiment(
    about="missing strokes: r.m.s. error (grey levels) of draws and their mean; test NLL (nats)",
    legend="mean: of two draws with momentum; the Gaussian's is its conditional mean",
    source="stl10",
    cells=cells,
    columns=(
        cell.STEPS,
        *(Column(f"study/rmse_{key}", name, interval=False) for key, name in CHAINS.items()),
        Column("study/rmse_momentum_mean", "mean", 1, "study/rmse_{}", interval=False),
        Column("study/rmse_mean_fill", "fill", interval=False),
        Column("test/nll", "NLL", 0, "baseline/{}_nll"),
    ),
    figures=figures,
)
