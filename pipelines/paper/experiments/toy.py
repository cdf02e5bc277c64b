"""Densities that are known: three in the plane by every objective, how far a flow stays from the
truth.

In the plane every objective has the same target, the density smoothed by σ = 0.375: denoising
score matching smooths by itself, the others are shown noised rows. At scale ``full`` the settings
are the paper's; at the others they are this project's, the same for all objectives but for what
score matching needs. There scores are matched in some steps only, and denoising leaves most of the
noise to the rows, which the steps between are shown too.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from pipelines.config import DensityConfig, ModelConfig, ObjectiveConfig
from pipelines.paper.config import DivergeConfig, PaperConfig
from pipelines.paper.experiments import cell
from pipelines.paper.experiments.cell import STEPS, Cell, Column, Experiment, Folders, Row
from pipelines.paper.experiments.settings import EVERY, OBJECTIVES, PLAIN, RAW, base
from pipelines.reporting.style import Captioned, panels

SIGMA = 0.375
SECONDS = 20.0
WEIGHTS = {"ssm_vr": SIGMA**2}
"""The recipe's factors of score matching beside an anchor of weight 1, where they are not the
default."""

OWN = 0.05
"""The recipe's noise of denoising score matching, of which rows have the rest."""

BOUND = 2.0
"""The recipe's bound of log-scales: free ones make a loss infinite, or a stray point cost much."""

FEW = {"samples": 1_000, "resolution": 40}
"""What is measured at scale ``smoke``."""

LENGTHS = {"sine": (2_048, 50_001), "swirl": (2_048, 50_001), "checkerboard": (10_000, 100_001)}
"""Published batch sizes and steps, by density."""

USUAL = {"lr": 1e-4, "clip": 10.0, "optimizer": "adam", "shift": "elu", "norm": None}
"""Published learning rate, norm of the gradient at most, optimizer, activation of the networks for
shifts (those for scales have ``swish``) and normalization of dense layers, if not told otherwise.
"""

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
"""Published otherwise, by density and objective."""


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a density and objective: the paper's settings or the recipe's."""
    size = FEW if config.scale == "smoke" else {}
    made = _paper if config.scale == "full" else _recipe
    common = {"cpu": SECONDS, "recipe": DensityConfig, "validate_every": 500, "threads": 1}
    for density, objective in product(LENGTHS, OBJECTIVES.values()):
        given = base(config, seed, density, full=LENGTHS[density][1], **common)
        flow = made(given, density, objective)
        own = flow.objective.options.get("sigma", 0.0)
        flow = flow.changed(train={"noise": math.sqrt(SIGMA**2 - own**2)})
        measure = DivergeConfig(density=density, sigma=SIGMA, **size)
        yield Cell.of_flow({"density": density, "objective": objective}, flow, measure=measure)


def _paper(flow: DensityConfig, density: str, objective: str) -> DensityConfig:
    paper = USUAL | PUBLISHED.get((density, objective), {})
    shift, norm = paper.pop("shift"), paper.pop("norm")
    return flow.changed(
        objective=ObjectiveConfig.of(objective, sigma=SIGMA),
        preprocess=RAW.changed(logit=None),
        model=ModelConfig(architecture="coupling", shift_activation=shift, norm=norm),
        anchor=PLAIN,
        train={
            **paper, "batch_size": LENGTHS[density][0], "schedule": "constant", "warmup": 0.0,
            "dtype": "float64",
        },
    )  # fmt: skip


def _recipe(flow: DensityConfig, density: str, objective: str) -> DensityConfig:
    weight = WEIGHTS.get(objective)
    return flow.changed(
        objective=ObjectiveConfig.of(objective, sigma=OWN, every=EVERY, weight=weight),
        preprocess={"logit": None, "match_after": False},
        model=ModelConfig(architecture="coupling", depth=6, hidden=32, bound=BOUND),
        train={"batch_size": 256, "lr": 1e-2, "warmup": 0.25, "clip": 1.0, "ema_decay": 0.99},
    )


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Captioned]:
    """Returns the densities of the first seed's flows beside the true ones."""
    figure, axes = panels(1 + len(OBJECTIVES), 9.6, 5.1, down=len(LENGTHS))
    places = dict(zip(product(LENGTHS, ("truth", *OBJECTIVES.values())), axes.flat, strict=True))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
    look = {"origin": "lower", "cmap": "magma", "interpolation": "bilinear"}
    for row, (_, measured) in cell.first_seed(rows, folders):
        density, objective = row["labels"].values()
        arrays = np.load(measured / "arrays.npz")
        brightest = np.exp(arrays["truth"].max())
        for name, key in (("truth", "truth"), (objective, "model")):
            places[density, name].imshow(np.exp(arrays[key]), vmin=0, vmax=brightest, **look)
        places[density, objective].set_xlabel(f"KL {row['study/kl']:.3f}")
    for axis, title in zip(axes[0], ("truth", *OBJECTIVES), strict=True):
        axis.set_title(title)
    for axis, density in zip(axes[:, 0], LENGTHS, strict=True):
        axis.set_ylabel(density)
    return {"densities": (figure, "Of the first seed; KL divergences from the truth, nats.")}


TOY = Experiment(
    about="divergences from smoothed densities; KLD: the paper's code's, E[p log p − log q]",
    legend="Gaussian base throughout (the paper's code: Laplace at evaluation); below scale full "
    f"scores are matched in one of {EVERY} steps beside an anchor in all",
    uses=frozenset(("seconds", "seed", "seeds", "cluster")),
    cells=cells,
    columns=(
        STEPS,
        Column("study/kl_repository", "KLD", 2, interval=False),
        Column("study/fisher", "Fisher", 2),
        Column("study/kl", "KL (nats)", 4),
    ),
    figures=figures,
)
