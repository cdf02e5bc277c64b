"""Default settings of a training, by the shape, the type and the number of the rows.

``ebflow.fit`` and ``ebflow run density`` both take their defaults from here. The page "Recipes and
baselines" of the site lists the recipes.

This module needs no PyTorch, so that the command line can describe a training at once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_COLUMNS = 64  # Columns of a table up to which its default flow is autoregressive
MOST_VALUES = 1024  # Values of an image (C H W) up to which score matching is convolutional
MOST_PIXELS = 16_384  # Values of an image of integers up to which each gets a probability
LEAST_STEPS, LEAST_EPOCHS = 6000, 20  # Of a training that no time limit ends
ENOUGH_ROWS = 10_000  # Rows from which on the learning rate is the largest
FEW_COLUMNS = 12  # Columns up to which an autoregressive flow learns fastest, with three layers
FEW_ROWS = 5_000  # Rows below which weights decay
SHORT = 10.0  # Most seconds of a training that is better if columns start whitened
MANY_COLUMNS = 20  # Columns from which on tails are optional, and a mixture may be better
BUDGET = 1 << 30  # Bytes of rows that are held in memory at most
LIKELIHOOD = ("ml", "lazy_ml", "relative_ml", "sml")  # Objectives that do not match scores
IMAGES: dict[str, dict[str, Any]] = {  # Architectures of images, with some of their settings
    "convolutional": dict(normalize="standardize", lr=1e-2),
    "glow": dict(normalize="standardize", lr=4e-3),
    "pixelcnn": dict(normalize="none", lr=1.5e-2),
}

# Options of architectures that the user leaves open.
OPTIONS: dict[str, dict[str, Any]] = {
    "dense": dict(depth=3, activation="spline"),
    "convolutional": dict(depth=3, kernel_size=3, activation="spline", hidden=32, sign=1.0),
    "autoregressive": dict(bins=8),
}

# What recipes set beside the settings of their architectures.
RECIPES: dict[str, dict[str, Any]] = {
    "tabular": dict(architecture="autoregressive"),
    "dense": dict(architecture="dense"),
    "wide": dict(architecture="dense", options={"depth": 2}, base="mixture"),
    "images": dict(architecture="convolutional", batch_size=100),
    "pixels": dict(architecture="pixelcnn", batch_size=16),
    "colour": dict(architecture="glow", options={"depth": 6, "hidden": 64}, batch_size=32),
    "large": dict(architecture="dense", options={"depth": 1}, gaussianize=True, lr=1.5e-3,
                  warmup=0.02, batch_size=100),
}  # fmt: skip

LEAKY = ("alpha", "residual", "centred", "calibrated")  # Options that only smooth leaky ReLUs have


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Attributes:
        base: The density of the latents: ``normal``, or ``mixture``, a mixture of Gaussians that
            is fitted behind the preprocessing first.
        normalize: As in ``ebflow.fit``; ``auto`` whitens columns that nearly depend on others.
        shrinkage: As in ``ebflow.fit``, like ``weight_decay`` and ``batch_size``.
        columns: True to fit grids, bounds and tails of real columns.
        gaussianize: True to transform heavy-tailed directions after the whitening.
        smoothing: The standard deviation of noise on preprocessed rows at the start.
        warmup: The share of the training in which the learning rate rises.
        steps: The number of steps: at least twenty epochs.
        rival: The recipe of a second flow, which may be better for few rows or many columns;
            empty: there is none.
    """

    name: str
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    base: str = "normal"
    normalize: str = "whiten"
    shrinkage: float | None = None
    columns: bool = True
    gaussianize: bool = False
    lr: float = 2e-3
    weight_decay: float = 0.0
    smoothing: float = 0.0
    warmup: float = 0.05
    batch_size: int = 128
    steps: int = 6000
    rival: str = ""

    @property
    def exact_categories(self) -> bool:
        """True if the architecture has exact probabilities of categories."""
        return self.architecture == "autoregressive" and self.base == "normal"


def recipe(
    shape: Sequence[int],
    *,
    rows: int,
    levels: int | None = None,
    context: int = 0,
    categories: bool = False,
    objective: str = "lazy_ml",
    architecture: str | None = None,
    options: Mapping[str, Any] | None = None,
    pixels: bool = True,
    seconds: float | None = None,
    name: str | None = None,
) -> Recipe:
    """Returns the default settings for data.

    Arguments:
        shape: The shape of a row: (D,), or (C, H, W) or (H, W) of an image.
        levels: The number of integer levels; None: the data are real.
        context: The number of elements of a context.
        architecture: The architecture that the user asks for; None: the default one.
        pixels: False if the flow cannot have exact probabilities of the levels of pixels.
        seconds: The time limit; None: there is none.
        name: The name of the recipe; None: the one that suits the data.
    """
    exact = pixels and architecture in (None, "pixelcnn") and levels is not None
    chosen = name or architecture or options
    name = name or _name(tuple(shape), levels, context, categories, objective, exact)
    size = math.prod(shape)
    settings = {**_of_architecture(RECIPES[name]["architecture"], size), **RECIPES[name]}
    if architecture is not None and architecture != settings["architecture"]:
        name, settings = architecture, _of_architecture(architecture, size)
    if settings["architecture"] == "autoregressive":
        settings |= _autoregressive(size, rows, short=(seconds or math.inf) <= SHORT)
    if settings["architecture"] == "glow":
        settings["options"] = {"levels": _levels(shape), **settings.get("options", {})}
    if settings["architecture"] == "pixelcnn" and rows < FEW_ROWS:
        settings["weight_decay"] = 0.5
    free = not (chosen or categories or context)
    if free and name == "tabular" and (size >= MANY_COLUMNS or rows < FEW_ROWS):
        settings["rival"] = "wide"
    settings["options"] = completed(
        settings["architecture"], {**settings.get("options", {}), **(options or {})}
    )
    most = max(rows / 8, min(32, rows / 2), 1)  # an eighth of the rows, or half of a few rows
    batch_size = min(settings.pop("batch_size", 128), 2 ** int(math.log2(most)))
    steps = max(LEAST_STEPS, LEAST_EPOCHS * rows // batch_size)
    return Recipe(name, columns=levels is None, batch_size=batch_size, steps=steps, **settings)


def completed(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of an architecture, with defaults for those that are left open.

    Dense and convolutional flows have learned splines. If an option of smooth leaky ReLUs is set,
    they have these, and start near the Gaussian.
    """
    defaults = OPTIONS.get(architecture, {})
    if "activation" not in defaults:
        return {**defaults, **options}
    leaky = not {*LEAKY}.isdisjoint(options)
    activation = options.get("activation", "smooth_leaky_relu" if leaky else "spline")
    result = {**defaults, "activation": activation, **options}
    if activation == "smooth_leaky_relu" and not options.get("spectral_norm"):
        result.setdefault("calibrated", True)
    return result


def refresh_rule(*, convolutions: bool) -> dict[str, float]:
    """Returns when the normalizer is refreshed.

    A convolution uses each weight at every pixel, so a small drift changes log Z much more.
    """
    if convolutions:
        return {"interval": 20, "tolerance": 0.02}
    return {"interval": 100, "tolerance": 0.2}


def _name(
    shape: tuple[int, ...],
    levels: int | None,
    context: int,
    categories: bool,
    objective: str,
    pixels: bool,
) -> str:
    """Returns the name of the recipe for data."""
    size, likelihood = math.prod(shape), objective in LIKELIHOOD
    if pixels and likelihood and len(shape) in (2, 3) and size <= MOST_PIXELS:
        return "colour" if shape[0] > 1 and len(shape) == 3 and _levels(shape) else "pixels"
    if len(shape) > 1 or levels is not None:
        small = "images" if len(shape) in (2, 3) else "dense"
        return small if size <= MOST_VALUES else "large"
    if not categories and (size > MOST_COLUMNS or (size == 1 and not context)):
        return "wide"
    return "tabular" if likelihood else "dense"


def _levels(shape: Sequence[int]) -> int:
    """Returns the number of levels of Glow: how often sides can be halved, at most 3 times."""
    return next((n for n in (3, 2, 1) if not any(side % 2**n for side in shape[-2:])), 0)


def _of_architecture(architecture: str, size: int) -> dict[str, Any]:
    """Returns the settings of an architecture, for rows of so many values."""
    lr = 2e-3 if size <= 256 else 1.5e-3 if size <= 1024 else 5e-4
    return {"architecture": architecture, "lr": lr, **IMAGES.get(architecture, {})}


def _autoregressive(size: int, rows: int, *, short: bool) -> dict[str, Any]:
    """Returns the settings of an autoregressive flow, by the numbers of columns and rows.

    Few rows are over-fitted within a hundred steps at the rate that suits many. So the rate falls
    with the root of their number, the weights of the networks decay, and rows get noise at first.
    It falls with the root of the number of columns, too. Steps of many columns take longer, so
    they have two layers instead of three. Whitened columns are learned in fewer steps.

    Source: Noise Regularization for Conditional Density Estimation (Rothfuss et al., 2019),
    arXiv:1907.08982.
    """
    lr = (1e-2 if size > 1 else 5e-3) * min(1.0, math.sqrt(rows / ENOUGH_ROWS))
    lr *= min(1.0, math.sqrt(FEW_COLUMNS / size))
    options = {"bins": 16} if size == 1 else {"depth": 2} if size > FEW_COLUMNS else {}
    settings = {"options": options, "lr": max(lr, 1e-3), "batch_size": 256}
    whitened = short and size < MANY_COLUMNS and rows >= FEW_ROWS
    settings["normalize"] = "cholesky" if whitened else "auto"
    if rows < FEW_ROWS:
        settings |= {"weight_decay": 0.3, "smoothing": 1.5 * max(rows, 1) ** -0.25}
    return settings
