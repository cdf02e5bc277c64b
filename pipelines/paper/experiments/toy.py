"""Three densities in the plane by every objective: how far a flow stays from the truth.

Every objective has the same target, the density smoothed by σ = 0.375: denoising score matching
smooths by itself, the others are shown noised rows. At scale ``full`` the settings are the
paper's; at the others they are this project's, the same for all objectives but for what score
matching needs. There scores are matched in some steps only, and denoising leaves most of the noise
to the rows, which the steps between are shown too.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.config import (
    AnchorConfig,
    DataConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
)
from pipelines.paper.config import DivergeConfig, PaperConfig
from pipelines.paper.experiments.cell import (
    STEPS,
    Cell,
    Column,
    Experiment,
    Folders,
    Row,
    first_seed,
    summarise,
)
from pipelines.paper.experiments.settings import EVERY, OBJECTIVES, bounds
from pipelines.reporting.style import panels

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

COLOURS = ["#6b6b6b", "#9a9a9a", "#1f5fa8", "#c2491d", "#d9a441"]
"""Of the objectives in figures: the likelihoods in grey."""


LENGTHS = {
    "sine": {"batch_size": 2_048, "steps": 50_001},
    "swirl": {"batch_size": 2_048, "steps": 50_001},
    "checkerboard": {"batch_size": 10_000, "steps": 100_001},
}
"""Published, by density."""


class Setting(NamedTuple):
    """Published settings of a density and an objective.

    Attributes:
        lr: Learning rate.
        clip: Norm of the gradient at most.
        shift: Activation of the networks for shifts; those for scales have ``swish``.
        optimizer: Optimiser.
        norm: Normalisation of the dense layers.
    """

    lr: float = 1e-4
    clip: float | None = 10.0
    shift: str = "elu"
    optimizer: str = "adam"
    norm: str | None = None


PUBLISHED = {
    ("sine", "ml"): Setting(5e-4, 1.0, "swish"),
    ("sine", "sml"): Setting(5e-4, None, "swish", "adamw"),
    ("sine", "ssm_vr"): Setting(clip=1.0, shift="swish"),
    ("sine", "dsm"): Setting(clip=1.0),
    ("sine", "fd_ssm"): Setting(clip=1.0, shift="swish"),
    ("swirl", "ml"): Setting(5e-3, 1.0),
    ("swirl", "sml"): Setting(),
    ("swirl", "ssm_vr"): Setting(shift="swish"),
    ("swirl", "dsm"): Setting(),
    ("swirl", "fd_ssm"): Setting(clip=2.5),
    ("checkerboard", "ml"): Setting(optimizer="adamw"),
    ("checkerboard", "sml"): Setting(optimizer="adamw"),
    ("checkerboard", "ssm_vr"): Setting(shift="swish", optimizer="adamw"),
    ("checkerboard", "dsm"): Setting(optimizer="adamw"),
    ("checkerboard", "fd_ssm"): Setting(norm="weight"),
}
"""Published, by density and objective."""


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a density and objective: the paper's settings or the recipe's."""
    size = FEW if config.scale == "smoke" else {}
    made = _paper if config.scale == "full" else _recipe
    for density, objective in product(LENGTHS, OBJECTIVES.values()):
        limits = bounds(config, cpu=SECONDS, full=LENGTHS[density]["steps"])
        flow = made(density, objective)
        own = flow.objective.options.get("sigma", 0.0)
        noise = math.sqrt(SIGMA**2 - own**2)
        flow = flow.changed(
            seed=seed, data=DataConfig(source=density), train={**limits, "noise": noise}
        )
        measure = DivergeConfig(density=density, sigma=SIGMA, **size)
        yield Cell.of_flow({"density": density, "objective": objective}, flow, measure=measure)


def _paper(density: str, objective: str) -> DensityConfig:
    paper = PUBLISHED[density, objective]
    return DensityConfig(
        objective=ObjectiveConfig.of(objective, sigma=SIGMA),
        preprocess=PreprocessConfig(normalise="none", logit=None),
        model=ModelConfig(architecture="coupling", shift_activation=paper.shift, norm=paper.norm),
        anchor=AnchorConfig(weight=0.0),
        train=TrainConfig(
            batch_size=LENGTHS[density]["batch_size"], optimizer=paper.optimizer, lr=paper.lr,
            clip=paper.clip, schedule="constant", warmup=0.0, dtype="float64", validate_every=500,
            threads=1,
        ),
    )  # fmt: skip


def _recipe(density: str, objective: str) -> DensityConfig:
    return DensityConfig(
        objective=ObjectiveConfig.of(
            objective, sigma=OWN, every=EVERY, weight=WEIGHTS.get(objective)
        ),
        preprocess=PreprocessConfig(normalise="whiten", logit=None, match_after=False),
        model=ModelConfig(architecture="coupling", depth=6, hidden=32, bound=BOUND),
        train=TrainConfig(
            batch_size=256, lr=1e-2, warmup=0.25, clip=1.0, ema_decay=0.99, validate_every=500,
            threads=1,
        ),
    )  # fmt: skip


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns the densities of the first seed's flows beside the true ones, and divergences."""
    first = [
        (row, np.load(measured / "arrays.npz")) for row, (_, measured) in first_seed(rows, folders)
    ]
    return {"densities": _densities(first), "divergences": _divergences(rows)}


def _densities(first: Sequence[tuple[Row, Any]]) -> Figure:
    figure, axes = panels(1 + len(OBJECTIVES), 9.6, 5.1, down=len(LENGTHS))
    for line, density in zip(axes, LENGTHS, strict=True):
        found = [pair for pair in first if pair[0]["labels"]["density"] == density]
        arrays = found[0][1]
        brightest = np.exp(arrays["truth"].max())
        _show(line[0], arrays, "truth", brightest)
        line[0].set_ylabel(density)
        for axis, (row, arrays) in zip(line[1:], found, strict=True):
            _show(axis, arrays, "model", brightest)
            axis.set_xlabel(f"KL {row['study/kl']:.3f}")
    for axis, title in zip(axes[0], ("truth", *OBJECTIVES), strict=True):
        axis.set_title(title)
    return figure


def _show(axis: Axes, arrays: Any, name: str, brightest: float) -> None:  # noqa: ANN401
    side = float(arrays["extent"])
    axis.imshow(
        np.exp(arrays[name]), origin="lower", extent=(-side, side, -side, side),
        cmap="magma", vmin=0, vmax=brightest, interpolation="bilinear",
    )  # fmt: skip
    axis.grid(visible=False)
    axis.set(xticks=[], yticks=[])


def _divergences(rows: Sequence[Row]) -> Figure:
    lines = {tuple(line.labels.values()): line.values for line in summarise(TOY.columns, rows)}
    figure, axes = panels(len(LENGTHS), 9, 4.4, down=2)
    for column, density in enumerate(LENGTHS):
        for axis, metric in zip(axes[:, column], ("study/kl", "study/fisher"), strict=True):
            found = [lines[density, name][metric] for name in OBJECTIVES.values()]
            means, halves = zip(*((one.value, one.high - one.value) for one in found), strict=True)
            axis.bar(list(OBJECTIVES), means, yerr=halves, color=COLOURS, capsize=3)
            axis.grid(visible=False, axis="x")
        axes[0, column].set_title(density)
    axes[0, 0].set_ylabel("KL divergence (nats)")
    axes[1, 0].set_ylabel("Fisher divergence")
    return figure


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
