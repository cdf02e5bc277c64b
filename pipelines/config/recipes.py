"""Named configurations of a training, and the one that suits a data set.

Defaults are those of :mod:`ebflow.recipes`.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ebflow import recipes
from pipelines.config import AnchorConfig, DataConfig, Dense, DensityConfig, Likelihood
from pipelines.config.data import PreprocessConfig
from pipelines.config.model import MODELS
from pipelines.config.source import opened
from pipelines.config.training import TrainConfig, Training

MANY = 100_000  # Rows assumed by a recipe that is chosen by name: enough for the largest batch

# The recipes of the library, each by the shape and the integer levels of typical data.
LIBRARY: dict[str, tuple[tuple[int, ...], int | None]] = {
    "images": ((1, 28, 28), 256),
    "pixels": ((1, 28, 28), 256),
    "colour": ((3, 32, 32), 256),
    "large": ((3, 32, 32), 256),
    "tabular": ((8,), None),
    "wide": ((100,), None),
    "dense": ((64,), 256),
}


def typical(name: str) -> DensityConfig:
    """Returns a recipe of the library."""
    shape, levels = LIBRARY[name]
    return configured(recipes.recipe(shape, rows=MANY, levels=levels, name=name))


def digits() -> DensityConfig:
    """Handwritten digits, 8×8, bundled with scikit-learn: learned activations, lazy likelihood."""
    return typical("dense").changed(
        name="digits",
        data=DataConfig(source="digits"),
        train={"steps": 6000, "max_seconds": None, "validate_every": 250, "threads": 1},
    )


def mnist9k_dense() -> DensityConfig:
    """Grey images of a few hundred pixels: dense layers, learned activations, whitening."""
    return typical("images").changed(
        name="mnist9k-dense",
        data=DataConfig(source="mnist9k.parquet", validation=1000, test=1000),
        preprocess=PreprocessConfig(shrinkage=1e-3),
        model=Dense(),
        anchor=AnchorConfig(tolerance=0.2),
        train={"lr": 1.5e-3, "warmup": 0.02},
    )


def configured(recipe: recipes.Recipe) -> DensityConfig:
    """Returns the configuration of a recipe of the library, within a time limit."""
    integers = {"max_seconds": 100, "threads": 2}
    defaults = recipes.completed(recipe.architecture, {})
    changed = {
        name: value for name, value in recipe.options.items() if value != defaults.get(name)
    }
    limits = {"max_seconds": 30, "patience": 15} if recipe.columns else integers
    rule = recipes.refresh_rule(convolutions=recipe.architecture in recipes.IMAGES)
    return DensityConfig(
        name=recipe.name,
        rival=recipe.rival or None,
        preprocess=PreprocessConfig(
            normalize=recipe.normalize,
            logit=None if recipe.columns else PreprocessConfig().logit,
            shrinkage=recipe.shrinkage,
            grids=recipe.columns,
            tails=recipe.columns,
            gaussianize=recipe.gaussianize,
        ),
        model=MODELS[recipe.architecture](base=recipe.base, **changed),
        objective=Likelihood(name="lazy_ml"),
        anchor=AnchorConfig(**rule),
        train=TrainConfig(
            steps=max(20_000, recipe.steps),
            batch_size=recipe.batch_size,
            optimizer="adamw" if recipe.weight_decay else "adam",
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            smoothing=recipe.smoothing,
            warmup=recipe.warmup,
            validate_every=200,
            **limits,
        ),
    )


def rival(config: DensityConfig) -> Training:
    """Returns the training of the second flow: of its recipe, as long as the first one.

    If it diverges, its best validation counts, so it does not end the run.
    """
    other = typical(config.rival)
    own = ("lr", "optimizer", "weight_decay", "smoothing", "warmup")
    return config.training.changed(
        model=other.model,
        preprocess={"normalize": other.preprocess.normalize, "shrinkage": None},
        train={name: getattr(other.train, name) for name in own} | {"retry": True},
    )


RECIPES: dict[str, Callable[[], DensityConfig]] = {
    "digits": digits,
    "mnist9k_dense": mnist9k_dense,
    **{name: partial(typical, name) for name in LIBRARY},
}


def for_source(
    data: DataConfig,
    objective: str | None = None,
    architecture: str | None = None,
    seconds: float | None = None,
) -> tuple[DensityConfig, str]:
    """Returns the recipe that suits a data set, with it as the source, and the recipe's name.

    Reads only the schema. The named data set of a recipe gets that recipe.

    Raises:
        BadInput: If there is no such data set, or its columns do not make one.
    """
    stem, reader = Path(data.source).stem, opened(data)
    recipe = recipes.recipe(
        reader.shape,
        rows=reader.rows,
        levels=reader.levels,
        context=reader.context_width,
        categories=reader.columns is not None and any(reader.columns.sizes),
        objective=objective or "lazy_ml",
        pixels=architecture in (None, "pixelcnn"),
        seconds=seconds,
    )
    base, suited = configured(recipe), recipe.name
    if data.source in RECIPES and RECIPES[data.source]().data.source == data.source:
        base, suited = RECIPES[data.source](), data.source
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem[:200]).strip("-._") or base.name
    return on_source(base, data.source).changed(name=name), suited


def on_source(recipe: DensityConfig, source: str) -> DensityConfig:
    """Returns the recipe on a data set; the sizes of its splits are of its own alone."""
    own = Path(source).stem == Path(recipe.data.source).stem
    data = recipe.data if own else DataConfig()
    return recipe.changed(data=data.changed(source=source))
