"""Densities in the plane: the divergence of each objective's flow from the truth.

Every objective has the same target, the density smoothed by σ = 0.375. Denoising score matching
smooths by itself; the other objectives train on noised rows. Score matching stands alone here,
without an anchor, as in the paper.

``exact_sm``, which has the exact trace of the Hessian by two directions, is not in the paper. It
shows what slices and differences add to score matching itself.

At scale ``full``, networks, steps, batches, learning rates and clipping are the published ones. At
the other scales, all objectives share one shorter setting.

The claim is the paper's: a flow trained by score matching is as good as one trained by
likelihood. ``MARGIN`` makes it a number, because no published number serves: the "KLD" of the
paper's code is no divergence (:mod:`ebflow.divergences`). A tenth of a nat is a mean ratio of
densities of 1.1, which no picture of the paper would show.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from pipelines.config import AnchorConfig, Coupling, DensityConfig, Objective
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Measure, Row
from pipelines.paper.config import DivergeConfig, PaperConfig
from pipelines.paper.table import OBJECTIVES
from pipelines.reporting.claims import Check, Conclusion, Question, decide
from pipelines.reporting.statistics import Confidence, below, student
from pipelines.reporting.style import Captioned, panels

SIGMA = 0.375
SECONDS = 45.0  # Of a training at scale ``cpu``

# Published batch sizes and steps, by density.
LENGTHS = {"sine": (2_048, 50_001), "swirl": (2_048, 50_001), "checkerboard": (10_000, 100_001)}

# Published learning rates and bounds of the gradient's norm; USUAL where the table has no entry.
USUAL: Mapping[str, Any] = {"lr": 1e-4, "clip": 10.0}
PUBLISHED: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("sine", "ml"): {"lr": 5e-4, "clip": 1.0},
    ("sine", "sml"): {"lr": 5e-4, "clip": None},
    ("sine", "ssm_vr"): {"clip": 1.0},
    ("sine", "dsm"): {"clip": 1.0},
    ("sine", "fd_ssm"): {"clip": 1.0},
    ("swirl", "ml"): {"lr": 5e-3, "clip": 1.0},
    ("swirl", "fd_ssm"): {"clip": 2.5},
}  # fmt: skip

# The published objectives, and the one that the sliced ones estimate.
TRAINED = (*OBJECTIVES.values(), "exact_sm")

# Published networks of shifts with ELU, and dense layers with weight normalization.
ELU = {
    ("sine", "dsm"),
    *product(["swirl", "checkerboard"], ["ml", "sml", "dsm", "fd_ssm"]),
}
WEIGHT_NORM = {("checkerboard", "fd_ssm")}

# Score matching, judged beside maximum likelihood; the largest excess of KL in nats.
MATCHING = ("ssm_vr", "dsm", "fd_ssm", "exact_sm")
MARGIN = 0.1

# Largest change of log p + E over a picture, in nats: some hundred roundings of float32. An energy
# that is not the flow's would differ by whole nats.
EVEN = 1e-3


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields each density and objective."""
    settings = _published if config.scale == "full" else _short
    sizes = {"samples": 2_000, "pixels": 40} if config.scale == "smoke" else {}
    for density, objective in product(LENGTHS, TRAINED):
        flow = settings(config, seed, density, objective).changed(
            objective=Objective.of(objective, sigma=SIGMA),
            anchor=AnchorConfig(weight=0.0),
            train={"noise": 0.0 if objective == "dsm" else SIGMA},
        )
        measure = Measure("diverge", DivergeConfig(density=density, sigma=SIGMA, **sizes))
        labels = {"density": density, "objective": objective}
        yield Cell.of_flow(labels, flow, measure=measure, likelihood=False)


def _published(config: PaperConfig, seed: int, density: str, objective: str) -> DensityConfig:
    """Returns the published settings."""
    batch, steps = LENGTHS[density]
    flow, case = _base(config, seed, density, full=steps), (density, objective)
    shift = "elu" if case in ELU else "swish"
    return flow.changed(
        preprocess={"normalize": "none"},
        model=Coupling(shift_activation=shift, weight_norm=case in WEIGHT_NORM),
        train={
            **USUAL, **PUBLISHED.get(case, {}), "batch_size": batch,
            "schedule": "constant", "warmup": 0.0, "dtype": "float64",
        },
    )  # fmt: skip


def _short(config: PaperConfig, seed: int, density: str, objective: str) -> DensityConfig:
    """Returns the settings of short trainings, the same for every objective."""
    return _base(config, seed, density, full=1).changed(
        # Free log-scales make a loss infinite, or a stray point too expensive.
        model=Coupling(depth=6, hidden=32, bound=2.0),
        train={"batch_size": 256, "lr": 3e-3, "clip": 1.0, "ema_decay": 0.99},
    )


def _base(config: PaperConfig, seed: int, density: str, *, full: int) -> DensityConfig:
    limits = {"cpu": SECONDS, "full": full, "validate_every": 500}
    flow = cell.base(config, seed, density, recipe=DensityConfig, **limits)
    return flow.changed(
        preprocess={"logit": None, "match_after": False, "normalize": "standardize"},
        train={"threads": 1},
    )


def excesses(finished: Sequence[Finished]) -> dict[tuple[str, str], Confidence]:
    """Returns how far each objective's KL is above ML's, in nats, by density and objective.

    All flows of a density are measured at the same points. Over several seeds the interval is
    Student's. A single seed has that of the mean over points, which says nothing of seeds.
    """
    values: dict[tuple[str, str, int], np.ndarray] = {}
    for one in finished:
        density, objective = one.cell.labels.values()
        values[density, objective, one.cell.seed] = _log_probs(one)
    found = {}
    for density, objective in product(LENGTHS, TRAINED):
        seeds = [
            values[density, "ml", seed] - values[density, objective, seed]
            for *names, seed in values
            if names == [density, objective] and (density, "ml", seed) in values
        ]
        if seeds:
            one = len(seeds) == 1
            found[density, objective] = student(seeds[0] if one else [s.mean() for s in seeds])
    return found


def _log_probs(one: Finished) -> np.ndarray:
    return np.load(one.folders["measured"] / "arrays.npz")["model_log_probs"]


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns a row per cell, with its excess of KL over the flow by ML of the same seed."""
    found = []
    for one in finished:
        seed = [other for other in finished if other.cell.seed == one.cell.seed]
        excess = excesses(seed).get(tuple(one.cell.labels.values()))
        values = {} if excess is None else {"excess": excess.value, "excess_se": excess.se}
        found.append(one.row | values)
    return found


def conclude(finished: Sequence[Finished]) -> Conclusion:
    """Returns a claim for each density and form of score matching."""
    found = excesses(finished) if cell.decisive(finished) else {}
    seeds = len({one.cell.seed for one in finished})
    units = f"{seeds} seeds" if seeds > 1 else "points, of a single seed"
    measured = []
    for density, objective in product(LENGTHS, MATCHING):
        question = Question(
            claim=f"On {density}, {objective} is within {MARGIN:g} nats of ml.",
            quantity="KL minus ml's KL",
            units="nats",
            expected=below(MARGIN),
            figure=density,
            item="E4",
            note=f"KL(p ‖ q) to the exact smoothed density, at the same new points. Over {units}.",
        )
        measured.append((question, found.get((density, objective))))
    claims = decide(measured)
    holding = sum(claim.verdict == "holds" for claim in claims)
    text = f"In {holding} of {len(claims)} cases score matching is within {MARGIN:g} nats of ML."
    change = "Longer trainings, and other seeds, would change the divergences."
    check = Check.of(
        "Density and energy of each picture differ by the normalizer alone.",
        "largest change of log p + E over pixels, nats",
        max(map(_unevenness, finished)),
        below(EVEN),
        item="E12",
    )
    return Conclusion(
        findings=(text,), claims=tuple(claims), checks=(check,), would_change=(change,)
    )


def _unevenness(one: Finished) -> float:
    """Returns the largest difference of log p + E between pixels of a cell's pictures.

    Pixels whose colours are at an end of the scale are left out: float32 has few digits there.
    """
    from pipelines.reporting.plane import DEEPEST

    arrays = np.load(one.folders["measured"] / "arrays.npz")
    energy = arrays["energy"]
    seen = energy < energy.min() + DEEPEST
    return float(np.ptp((arrays["log_prob"] + energy)[seen]))


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> "dict[str, Captioned]":
    """Returns density, energy and score of each objective's flow, beside the data."""
    first = [one for one in finished if one.cell.seed == finished[0].cell.seed]
    found = {}
    for density in LENGTHS:
        flows = {
            one.cell.labels["objective"]: one
            for one in first
            if one.cell.labels["density"] == density
        }
        if flows:
            found[density] = _figure(density, flows)
    return found


def _figure(density: str, flows: "Mapping[str, Finished]") -> Captioned:
    """Returns the pictures of a density's flows: the data, the truth, and every objective."""
    from ebflow.toy_densities import SMOOTHED  # a plan needs no torch
    from pipelines.paper.diverge import ARRAYS, SQUARE
    from pipelines.reporting import plane

    arrays = {name: np.load(one.folders["measured"] / ARRAYS) for name, one in flows.items()}
    some = next(iter(arrays.values()))
    truth = plane.evaluate(SMOOTHED[density](SIGMA), SQUARE, pixels=len(some["log_prob"]))
    brightest = float(np.exp(truth["log_prob"].max()))
    down = len(plane.PICTURES)
    figure, axes = panels(2 + len(arrays), 2.2 * (2 + len(arrays)), 6.6, down=down, squeeze=False)
    plane.draw_rows(axes[0, 0], some["rows"], SQUARE)
    for axis in axes[1:, 0]:
        axis.axis("off")
    axes[0, 0].set_title("noised data")
    for column, (title, values) in enumerate({"truth": truth, **arrays}.items(), 1):
        for axis, picture in zip(axes[:, column], plane.PICTURES, strict=True):
            plane.draw(axis, picture, values, SQUARE, brightest=brightest)
        kl = f", KL {flows[title].row['study/kl']:.3f}" if title in flows else ""
        axes[0, column].set_title(title + kl)
    for axis, picture in zip(axes[:, 1], plane.PICTURES, strict=True):
        axis.set_ylabel(picture)
    caption = (
        f"Of the first seed, {density}: density, energy and score of each flow beside the exact "
        "smoothed density. Energies have no common zero; KL divergences are in nats."
    )
    return figure, caption


PLANE = Experiment(
    about="divergences of flows from smoothed densities in the plane",
    legend="score matching alone, without an anchor; Gaussian base throughout (the paper's code: "
    "Laplace at evaluation); above ml: KL less that of ml's flow; summary.json also has "
    "study/repository_kld, the number that the paper's code prints",
    uses=frozenset(("seconds", "seed", "seeds", "cluster")),
    cells=cells,
    rows=rows,
    columns=(
        cell.STEPS,
        Column("study/fisher", "Fisher", 3, interval=False),
        Column("excess", "above ml", 3),
        Column("study/kl", "KL (nats)", 3),
    ),
    figures=figures,
    conclude=conclude,
)
