"""Named configurations: each a function that returns one; a variant changes fields of another."""

import math
import re
from collections.abc import Callable
from pathlib import Path

from ebflow.errors import BadInput
from pipelines.config import (
    AnchorConfig,
    DataConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
)
from pipelines.config.source import opened
from pipelines.data.named import SOURCES

FEW, MANY = 64, 1024
"""Columns of numbers up to which they get the recipe ``tabular``; numbers of an image up to which
it gets ``mnist9k``."""


def digits() -> DensityConfig:
    """Handwritten digits, 8×8, bundled with scikit-learn: learned activations, lazy likelihood."""
    return DensityConfig(
        name="digits",
        data=DataConfig(source="digits"),
        model=ModelConfig(activation="spline"),
        objective=ObjectiveConfig(name="lazy_ml"),
        anchor=AnchorConfig(tolerance=0.2),
    )


def mnist9k() -> DensityConfig:
    """Images: nine 3×3 convolutions, behind each a learned activation a pixel and a coupling.

    Whitening would undo that pixels know their neighbours.
    """
    return DensityConfig(
        name="mnist9k",
        data=DataConfig(source="mnist9k.parquet", validation=1000, test=1000),
        preprocess=PreprocessConfig(normalize="standardize"),
        model=ModelConfig(
            architecture="convolutional", activation="spline", kernel_size=3, depth=3, hidden=32
        ),
        objective=ObjectiveConfig(name="lazy_ml"),
        anchor=AnchorConfig(interval=20, tolerance=0.02),
        train=TrainConfig(
            batch_size=100, max_seconds=100, steps=20_000, lr=1e-2, validate_every=200, threads=2
        ),
    )


def mnist9k_dense() -> DensityConfig:
    """Grey images of a few hundred pixels: dense layers, learned activations, whitening."""
    return mnist9k().changed(
        name="mnist9k-dense",
        preprocess=PreprocessConfig(shrinkage=1e-3),
        model=ModelConfig(activation="spline"),
        anchor=AnchorConfig(tolerance=0.2),
        train={"lr": 1.5e-3, "warmup": 0.02},
    )


def large() -> DensityConfig:
    """Images of more than 1,024 numbers: whitened, each direction made normal, a dense layer.

    A few steps of a net are all that some minutes of a core have room for.
    """
    return mnist9k_dense().changed(
        name="large",
        preprocess=PreprocessConfig(shrinkage=None, gaussianize=True),
        model=ModelConfig(activation="spline", depth=1),
    )


def tabular() -> DensityConfig:
    """Up to 64 columns of real numbers: splines of columns in turn, matrices between them.

    Columns on grids are dequantized, bounds and tails fitted, columns standardized: their own
    axes mean something.
    """
    return DensityConfig(
        name="tabular",
        model=ModelConfig(architecture="autoregressive"),
        objective=ObjectiveConfig(name="lazy_ml"),
        anchor=AnchorConfig(tolerance=0.2),
        preprocess=PreprocessConfig(
            normalize="standardize", logit=None, shrinkage=None, grids=True, tails=True
        ),
        train=TrainConfig(
            steps=20_000, max_seconds=30, batch_size=256, lr=1e-2, validate_every=200, patience=15
        ),
    )


def wide() -> DensityConfig:
    """More columns, or one: whitening, dense layers, learned activations, a mixture's base."""
    return tabular().changed(
        name="wide",
        model=ModelConfig(activation="spline", depth=2, base="mixture"),
        preprocess={"normalize": "whiten"},
        train={"lr": 2e-3, "batch_size": 128},
    )


def paper() -> DensityConfig:
    """The published settings on images: plain DSM, RMSprop, no whitening, no anchor."""
    return mnist9k_dense().changed(
        name="paper",
        preprocess=PreprocessConfig(normalize="none", scale=0.5),
        model=ModelConfig(depth=2, sign=-1, bias=1.0, calibrated=False),
        objective=ObjectiveConfig(name="dsm", sigma=1.0),
        anchor=AnchorConfig(weight=0.0),
        train={"optimizer": "rmsprop", "lr": 1e-4, "schedule": "constant", "warmup": 0.0},
    )


RECIPES: dict[str, Callable[[], DensityConfig]] = {
    recipe.__name__: recipe
    for recipe in (digits, mnist9k, mnist9k_dense, large, tabular, wide, paper)
}


def named(name: str, source: str | None = None) -> DensityConfig:
    """Returns the recipe of that name, for a data set other than its own if one is given.

    Raises:
        BadInput: If there is no such recipe.
    """
    if name not in RECIPES:
        raise BadInput(f"--recipe: found {name!r}, expected one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]()
    return recipe if source is None else _on(recipe, source)


def for_source(data: DataConfig) -> tuple[DensityConfig, str]:
    """Returns the recipe that suits a data set, with it as the source, and the recipe's name.

    Reads only the schema. The file that a recipe is of gets that one.

    Raises:
        BadInput: If there is no such data set, or its columns do not make one.
    """
    source, stem = data.source, Path(data.source).stem
    if source in SOURCES and source in RECIPES:
        return RECIPES[source](), source
    reader = opened(data)
    layout = reader.layout
    size = math.prod(layout.shape)
    real = "tabular" if 2 <= size <= FEW else "wide"
    image = "mnist9k" if size <= MANY else "large"
    suited = stem if _is_of(stem) else real if layout.levels is None else image
    base = _sized(RECIPES[suited](), reader.rows)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem[:200]).strip("-._") or base.name
    return _on(base, source).changed(name=name), suited


def _is_of(stem: str) -> bool:
    """Whether a file is called like the data of the recipe that is called like it."""
    return stem in RECIPES and Path(RECIPES[stem]().data.source).stem == stem


def _on(recipe: DensityConfig, source: str) -> DensityConfig:
    """Returns the recipe on a data set; the sizes of its splits are of its own alone."""
    own = Path(source).stem == Path(recipe.data.source).stem
    data = recipe.data if own else DataConfig()
    return recipe.changed(data=data.changed(source=source))


def _sized(recipe: DensityConfig, rows: int) -> DensityConfig:
    """Returns the recipe with a batch of at most an eighth of the rows, a power of two."""
    most = 2 ** max(0, int(math.log2(max(rows, 8) / 8)))
    return recipe.changed(train={"batch_size": min(recipe.train.batch_size, most)})
