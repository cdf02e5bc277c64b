"""Densities in the plane: the divergence of each objective's flow from the truth.

Every objective has the same target, the density smoothed by σ = 0.375. Denoising score matching
smooths by itself; the other objectives see noised rows. Scale ``full`` has the paper's settings.
The other scales have this project's: scores are matched in some steps only, and denoising leaves
most of the noise to the rows, because the steps between see the same rows.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from pipelines.config import (
    AnchorConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
)
from pipelines.paper.config import DivergeConfig, PaperConfig
from pipelines.paper.experiments import cell
from pipelines.paper.experiments.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.experiments.table import OBJECTIVES
from pipelines.reporting.style import Captioned, panels

SIGMA = 0.375
SECONDS = 20.0

OWN_SIGMA = 0.05
"""The recipe's noise of denoising score matching; the rows have the rest."""

SMOKE = {"samples": 1_000, "resolution": 40}
"""Options of the measurement at scale ``smoke``."""

LENGTHS = {"sine": (2_048, 50_001), "swirl": (2_048, 50_001), "checkerboard": (10_000, 100_001)}
"""Published batch sizes and steps, by density."""

USUAL = {"lr": 1e-4, "clip": 10.0, "optimizer": "adam", "shift": "elu", "norm": None}
"""Published learning rate, bound of the gradient's norm, optimizer, activation of the networks for
shifts (those for scales have ``swish``) and normalization of dense layers; ``PUBLISHED`` has the
exceptions."""

PUBLISHED = {
    ("sine", "ml"): {"lr": 5e-4, "clip": 1.0, "shift": "swish"},
    ("sine", "sml"): {"lr": 5e-4, "clip": None, "shift": "swish", "optimizer": "adamw"},
    ("sine", "ssm_vr"): {"clip": 1.0, "shift": "swish"},
    ("sine", "dsm"): {"clip": 1.0},
    ("sine", "fd_ssm"): {"clip": 1.0, "shift": "swish"},
    ("swirl", "ml"): {"lr": 5e-3, "clip": 1.0},
    ("swirl", "ssm_vr"): {"shift": "swish"},
    ("swirl", "fd_ssm"): {"clip": 2.5},
    ("checkerboard", "ml"): {"optimizer": "adamw"},
    ("checkerboard", "sml"): {"optimizer": "adamw"},
    ("checkerboard", "ssm_vr"): {"shift": "swish", "optimizer": "adamw"},
    ("checkerboard", "dsm"): {"optimizer": "adamw"},
    ("checkerboard", "fd_ssm"): {"norm": "weight"},
}
"""Published exceptions, by density and objective."""


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields each density and objective, by the paper's settings or the recipe's."""
    settings = _published if config.scale == "full" else _recipe
    common = {"cpu": SECONDS, "recipe": DensityConfig, "validate_every": 500, "threads": 1}
    for density, objective in product(LENGTHS, OBJECTIVES.values()):
        flow = cell.base(config, seed, density, full=LENGTHS[density][1], **common)
        flow = settings(flow, density, objective)
        own = flow.objective.options.get("sigma", 0.0)
        flow = flow.changed(train={"noise": math.sqrt(SIGMA**2 - own**2)})
        size = SMOKE if config.scale == "smoke" else {}
        measure = DivergeConfig(density=density, sigma=SIGMA, **size)
        yield Cell.of_flow({"density": density, "objective": objective}, flow, measure=measure)


def _published(flow: DensityConfig, density: str, objective: str) -> DensityConfig:
    train = USUAL | PUBLISHED.get((density, objective), {})
    shift, norm = train.pop("shift"), train.pop("norm")
    train |= {"batch_size": LENGTHS[density][0], "schedule": "constant", "warmup": 0.0}
    return flow.changed(
        objective=ObjectiveConfig.of(objective, sigma=SIGMA),
        preprocess=PreprocessConfig(normalize="none", logit=None),
        model=ModelConfig(architecture="coupling", shift_activation=shift, norm=norm),
        anchor=AnchorConfig(weight=0.0),
        train=train | {"dtype": "float64"},
    )


def _recipe(flow: DensityConfig, density: str, objective: str) -> DensityConfig:
    weight = SIGMA**2 if objective == "ssm_vr" else None
    return flow.changed(
        objective=ObjectiveConfig.of(objective, sigma=OWN_SIGMA, every=cell.EVERY, weight=weight),
        preprocess={"logit": None, "match_after": False},
        # Free log-scales make a loss infinite, or a stray point too expensive.
        model=ModelConfig(architecture="coupling", depth=6, hidden=32, bound=2.0),
        train={"batch_size": 256, "lr": 1e-2, "warmup": 0.25, "clip": 1.0, "ema_decay": 0.99},
    )


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    """Returns the densities of the first seed's flows beside the true ones."""
    figure, axes = panels(1 + len(OBJECTIVES), 9.6, 5.1, down=len(LENGTHS))
    places = dict(zip(product(LENGTHS, ("truth", *OBJECTIVES.values())), axes.flat, strict=True))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
    look = {"origin": "lower", "cmap": "magma", "interpolation": "bilinear"}
    for one in (one for one in finished if one.cell.seed == finished[0].cell.seed):
        density, objective = one.cell.labels.values()
        arrays = np.load(one.folders[-1] / "arrays.npz")
        brightest = np.exp(arrays["truth"].max())
        for name, key in (("truth", "truth"), (objective, "model")):
            places[density, name].imshow(np.exp(arrays[key]), vmin=0, vmax=brightest, **look)
        places[density, objective].set_xlabel(f"KL {one.row['study/kl']:.3f}")
    for axis, title in zip(axes[0], ("truth", *OBJECTIVES), strict=True):
        axis.set_title(title)
    for axis, density in zip(axes[:, 0], LENGTHS, strict=True):
        axis.set_ylabel(density)
    return {"densities": (figure, "Of the first seed; KL divergences from the truth, nats.")}


TOY = Experiment(
    about="divergences from smoothed densities; KLD: the paper's code's, E[p log p − log q]",
    legend="Gaussian base throughout (the paper's code: Laplace at evaluation); below scale full "
    f"scores are matched in one of {cell.EVERY} steps beside an anchor in all",
    uses=frozenset(("seconds", "seed", "seeds", "cluster")),
    cells=cells,
    columns=(
        cell.STEPS,
        Column("study/kl_repository", "KLD", 2, interval=False),
        Column("study/fisher", "Fisher", 2),
        Column("study/kl", "KL (nats)", 4),
    ),
    figures=figures,
)
