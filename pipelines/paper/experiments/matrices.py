"""Arbitrary matrices beside structured ones, on 512 modes in ten dimensions, by exact likelihood.

A flow of arbitrary matrices needs a log-determinant, which score matching avoids. Structured
matrices have a cheap one. The paper's figure shows what the structure costs: arbitrary matrices
fit better than triangular ones. Settings at scale ``full`` are the published ones, with a
Gaussian base (the paper's code has a Laplace one). At the other scales they are the same, but for
smaller batches.

The claim is that each structure is worse by more than ``MARGIN`` nats. A tenth of a nat is a mean
ratio of densities of 1.1.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.config import AnchorConfig, DensityConfig, Likelihood, Structured
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Measure, Row
from pipelines.paper.config import ModesConfig, PaperConfig
from pipelines.paper.progress import Curve, curve, draw
from pipelines.reporting.claims import Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Confidence, above, student
from pipelines.reporting.style import Captioned

SOURCE = "multimodal10"
SECONDS = 40.0  # Of a training at scale ``cpu``
STEPS = 10_001  # Published steps

FULL = "full"
OTHERS = ("lower", "upper", "two_triangles", "lu", "monarch", "low_rank")
MARGIN = 0.1

BATCH = {"smoke": 256, "cpu": 512, "full": 2_048}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields a flow of each structure."""
    common = cell.base(config, seed, SOURCE, cpu=SECONDS, full=STEPS, recipe=DensityConfig)
    common = common.changed(
        preprocess={"logit": None, "normalize": "none"},
        objective=Likelihood(),
        anchor=AnchorConfig(weight=0.0),
        train={
            "batch_size": BATCH[config.scale], "lr": 1e-3, "schedule": "constant", "warmup": 0.0,
            "ema_decay": 0.0, "clip": 500.0, "dtype": "float64", "threads": 1,
            "validate_every": min(100, common.train.validate_every),
        },
    )  # fmt: skip
    samples = 2_000 if config.scale == "smoke" else 10_000
    for structure in (FULL, *OTHERS):
        flow = common.changed(model=Structured(structure=structure))
        measure = Measure("modes", ModesConfig(samples=samples))
        yield Cell.of_flow({"matrices": structure}, flow, measure=measure, likelihood=False)


def excess(finished: Sequence[Finished], structure: str) -> Confidence | None:
    """Returns how far the NLL of a structure is above that of arbitrary matrices, in nats.

    All flows are measured at the same points. Over several seeds the interval is Student's. A
    single seed has that of the mean over points, which says nothing of seeds.
    """
    values = {(one.cell.labels["matrices"], one.cell.seed): _log_probs(one) for one in finished}
    seeds = [
        values[FULL, seed] - rows
        for (name, seed), rows in values.items()
        if name == structure and (FULL, seed) in values
    ]
    if not seeds:
        return None
    one = len(seeds) == 1
    return student(seeds[0] if one else [rows.mean() for rows in seeds])


def _log_probs(one: Finished) -> np.ndarray:
    return np.load(one.folders["measured"] / "arrays.npz")["model_log_probs"]


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns a row per cell, with its excess over arbitrary matrices of the same seed."""
    found = []
    for one in finished:
        seed = [other for other in finished if other.cell.seed == one.cell.seed]
        above_full = excess(seed, one.cell.labels["matrices"])
        values = {} if above_full is None else {"excess": above_full.value}
        found.append(one.row | values)
    return found


def conclude(finished: Sequence[Finished]) -> Conclusion:
    """Returns a claim for each structure."""
    claims = decide([*_measured(finished)])
    worse = sum(claim.verdict == "holds" for claim in claims)
    text = f"{worse} of {len(claims)} structures are worse than arbitrary matrices."
    change = "Other learning rates for each structure, and longer trainings."
    return Conclusion(findings=(text,), claims=tuple(claims), would_change=(change,))


def _measured(finished: Sequence[Finished]) -> Iterator[Measured]:
    for structure in OTHERS:
        question = Question(
            claim=f"Matrices {structure} are worse than arbitrary ones.",
            quantity="NLL less that of arbitrary matrices",
            units="nats",
            expected=above(MARGIN),
            figure="matrices",
            item="E11",
            note="At the same new points. Over seeds, or over points of a single seed.",
        )
        yield question, excess(finished, structure) if cell.decisive(finished) else None


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    """Returns validation NLL against steps and seconds, by structure."""
    curves: dict[str, list[Curve]] = {}
    for one in finished:
        curves.setdefault(one.cell.labels["matrices"], []).append(curve(one))
    caption = (
        "Validation NLL against steps and against seconds of training; several lines of a colour "
        "are seeds. Ten blocks of a matrix, a smooth leaky ReLU and ActNorm."
    )
    return {"matrices": (draw(curves), caption)}


MATRICES = Experiment(
    about="512 modes in ten dimensions, by the structure of the flow's matrices",
    legend="exact ML, Gaussian base (the paper's code: Laplace), one learning rate for all; KL: "
    "from the exact density; modes: total variation of the masses of modes, by as many samples "
    "(of the distribution itself: study/modes_tv_truth); above: NLL less that of full",
    uses=frozenset(("seconds", "steps", "seed", "seeds", "cluster")),
    cells=cells,
    rows=rows,
    columns=(
        cell.STEPS,
        Column("study/modes_tv", "modes", 3, interval=False),
        Column("study/kl", "KL", 2, interval=False),
        Column("excess", "above", 2, interval=False),
        Column("study/nll", "NLL (nats)", 2),
    ),
    figures=figures,
    conclude=conclude,
)
