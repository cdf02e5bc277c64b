"""Imputation: missing strokes of photographs, filled in by dense flows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipelines.config import DensityConfig, ModelConfig
from pipelines.paper.config import ImputeConfig, PaperConfig
from pipelines.paper.experiments.cell import (
    STEPS,
    Cell,
    Column,
    Experiment,
    Folders,
    Row,
    first_seed,
)
from pipelines.paper.experiments.settings import (
    IMAGE_OPTIONS,
    SMOKE_STEPS,
    base,
    published,
    recipe,
)
from pipelines.reporting.pictures import tiles
from pipelines.reporting.style import panels

LOW_ENERGY = 0.001 * 64 * 64
"""The weight 0.001 of the energy on STL-10, carried over as that on CIFAR-10."""

EPOCHS, ROWS = 500, 5_000
SHOWN = 12
HIDDEN = 0.5
"""The grey of a missing pixel."""

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
    yield Cell.of_flow({"flow": "paper dsm"}, _paper(config, seed), measure=measure)
    common = _base(config, seed, 100)
    for objective in ("dsm", "lazy_ml"):
        flow = recipe(common, "FC", objective)
        flow = flow.changed(model=ModelConfig(depth=2), train={"lr": 5e-4})
        yield Cell.of_flow({"flow": f"recipe {objective}"}, flow, measure=measure)


def _base(config: PaperConfig, seed: int, batch_size: int) -> DensityConfig:
    """Returns the experiment's data, and 500 epochs of them or what the scale allows."""
    full, epoch = config.scale == "full", ROWS // batch_size
    source = "stl10" if full else "natural-patches"
    return base(config, seed, source, cpu=90, full=EPOCHS * epoch).changed(
        train={
            "batch_size": batch_size,
            "augment": "stl10" if full else "none",
            "validate_every": SMOKE_STEPS if config.scale == "smoke" else epoch,
        }
    )


def _paper(config: PaperConfig, seed: int) -> DensityConfig:
    common = _base(config, seed, 10)
    return published(common, "FC", "dsm", "colour", ROWS // 10).changed(
        train={"augment": common.train.augment},
        stabilise={"low_energy": LOW_ENERGY} if config.scale == "full" else {},
    )


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns the first test images, what is missing, and what the first seed puts there."""
    found = [(row, _arrays(measured)) for row, (_, measured) in first_seed(rows, folders)]
    first = found[0][1]
    seen = np.where(first["missing"], HIDDEN, first["truth"])
    shown = [("truth", first["truth"]), ("seen", seen), ("Gaussian", first["gaussian"])]
    for row, arrays in found:
        name = " ".join(row["labels"].values())
        shown += [(f"{name}\n{chain}", arrays[key]) for key, chain in CHAINS.items()]
    return {"imputations": _picture(shown, tuple(first["shape"]))}


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    """Returns the stage's arrays, images in [0, 1]."""
    with np.load(folder / "arrays.npz") as file:
        found = dict(file)
    black, white = found.pop("range")
    plain = ("missing", "shape")
    return {
        name: array if name in plain else (array - black) / (white - black)
        for name, array in found.items()
    }


def _picture(shown: Sequence[tuple[str, np.ndarray]], shape: tuple[int, ...]) -> Figure:
    figure, axes = panels(1, 10, 0.68 * len(shown), down=len(shown))
    for axis, (name, images) in zip(axes, shown, strict=True):
        axis.imshow(tiles(images[:SHOWN], shape, SHOWN), cmap="gray", vmin=0, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


IMPUTATION = Experiment(
    about="missing strokes: r.m.s. error (grey levels) of draws and their mean; test NLL (nats)",
    legend="mean: of two draws with momentum; the Gaussian's is its conditional mean",
    source="stl10",
    uses=IMAGE_OPTIONS,
    cells=cells,
    columns=(
        STEPS,
        *(Column(f"study/rmse_{key}", name, interval=False) for key, name in CHAINS.items()),
        Column("study/rmse_momentum_mean", "mean", 1, "study/rmse_gaussian", interval=False),
        Column("study/rmse_mean_fill", "fill", 1, "study/rmse_mean_fill", interval=False),
        Column("test/nll", "NLL", 0, "nll"),
    ),
    figures=figures,
)
