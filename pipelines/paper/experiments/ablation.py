"""The ablation: the published settings with one of them changed at a time.

* EMA: the averaged weights at evaluation. Off: the last weights.
* MaP (match after preprocessing): scores are matched behind the logit. Off: in grey levels, where
  today's logit continues linearly outside the range. The paper's code has NaN there.
* Clipping: of FD-SSM on MNIST the paper clips the gradient's norm, of others it does not.
* The learning rate falls after each of the first epochs. Constant: it does not.
* Negative start: linear layers start as minus the identity. Positive: as the identity.

The paper has numbers for EMA and MaP. Its claim is that matching before the preprocessing costs
hundreds of nats, on MNIST at least 628. ``MATTERS`` is a tenth of a nat a dimension, or 78 nats on
MNIST. For the other settings the claim is only that the published choice is not worse: ``HARM`` is
a hundredth of a nat a dimension.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from pipelines import metrics_log
from pipelines.config import DensityConfig
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig
from pipelines.paper.table import EPOCH, EPOCHS, NETS, WIDTH, published
from pipelines.reporting.claims import Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Confidence, above, student
from pipelines.reporting.style import Captioned, panels

SECONDS = 15.0  # Of a training at scale ``cpu``

MATCHING = ("ssm_vr", "dsm", "fd_ssm")
PUBLISHED = "published"

# Published test NLL by settings and network, in the order of ``MATCHING``.
NUMBERS = {
    (PUBLISHED, "FC"): (1092.8, 1099.2, 1104.1),
    (PUBLISHED, "CNN"): (1107.5, 1109.5, 1122.1),
    ("no-map", "FC"): (1720.5, 4455.0, 3166.3),
    ("no-map", "CNN"): (3504.5, 3180.0, 3560.3),
    ("no-ema-no-map", "FC"): (1757.5, 4660.3, 3267.0),
    ("no-ema-no-map", "CNN"): (3518.0, 3170.0, 3593.3),
}

# In float64, because the norms of such gradients overflow float32.
NO_MAP = {"preprocess": {"match_after": False}, "train": {"dtype": "float64"}}
NO_EMA = {"train": {"ema_decay": 0.0}}

# Changes of the published settings; ``clipping`` is the other choice of clipping.
CHANGES: Mapping[str, Mapping[str, Any]] = {
    PUBLISHED: {},
    "no-ema": NO_EMA,
    "no-map": NO_MAP,
    "no-ema-no-map": {**NO_MAP, "train": {"dtype": "float64", "ema_decay": 0.0}},
    "clipping": {},
    "constant-rate": {"train": {"schedule": "constant"}},
    "positive-start": {"model": {"sign": 1}},
}

# Settings that are compared: with and without, the name, and the least loss without in nats a
# dimension.
MATTERS, HARM = 0.1, -0.01
PAIRS = (
    (PUBLISHED, "no-map", "matching after the preprocessing", MATTERS),
    (PUBLISHED, "no-ema", "averaging weights", HARM),
    ("no-map", "no-ema-no-map", "averaging weights (no MaP)", HARM),
    (PUBLISHED, "clipping", "the published choice of clipping", HARM),
    (PUBLISHED, "constant-rate", "a falling learning rate", HARM),
    (PUBLISHED, "positive-start", "a negative start", HARM),
)

BOUND = 5.0 * WIDTH  # The published norm, of a loss that is not divided by D

# A norm that no gradient reaches: a bound makes the training log the gradient's norm.
UNBOUNDED = 1e100

# Steps of an epoch, after which the rate falls. Shorter trainings than the paper's have shorter
# ones, so that the rate falls in them, too.
EPOCHS_OF = {"smoke": 1, "cpu": 20, "full": EPOCH["grey"]}


def cells(config: PaperConfig, seed: int) -> list[Cell]:
    """Returns each network, objective and change; at scale ``smoke`` those of one objective."""
    if config.scale == "smoke":
        few = {"networks": ("FC",), "objectives": ("dsm",)}
        config = config.changed(**{k: names for k, names in few.items() if not getattr(config, k)})
    return cell.choose(config, _cells(config, seed))


def _cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    common = cell.base(config, seed, "mnist", cpu=SECONDS, full=EPOCHS * EPOCH["grey"])
    for network, change, objective in product(NETS, CHANGES, MATCHING):
        labels = {"network": network, "settings": change, "objective": objective}
        numbers = NUMBERS.get((change, network))
        number = numbers and numbers[MATCHING.index(objective)]
        flow = changed(common, network, objective, change)
        flow = flow.changed(train={"epoch": EPOCHS_OF[config.scale], "log_every": 10})
        yield Cell.of_flow(labels, flow, published=number)


def changed(common: DensityConfig, network: str, objective: str, change: str) -> DensityConfig:
    """Returns the published settings with one of ``CHANGES``."""
    flow = published(common, network, objective, "grey")
    clipped = flow.train.clip is not None
    if change == "clipping":
        clipped = not clipped
    flow = flow.changed(train={"clip": BOUND if clipped else UNBOUNDED})
    return flow.changed(**CHANGES[change])


Place = tuple[str, str, str]  # Network, settings and objective


def losses(finished: Sequence[Finished], without: Place, reference: Place) -> Confidence | None:
    """Returns how much higher the NLL is than a reference's, in nats a dimension.

    Over several seeds the interval is Student's. A single seed has that of the mean over test
    rows, which says nothing of seeds. None if a cell is missing or diverged.
    """
    found = {(tuple(one.cell.labels.values()), one.cell.seed): one for one in finished}
    differences = [
        _rows(found[reference, seed]) - _rows(one)
        for (place, seed), one in found.items()
        if place == without and (reference, seed) in found
    ]
    if not differences:
        return None
    one = len(differences) == 1
    return student(differences[0] if one else [rows.mean() for rows in differences])


def _rows(one: Finished) -> np.ndarray:
    """Returns the log-densities of test rows in nats a dimension."""
    return np.load(one.log_probs)["test"] / dimension(one)


def dimension(one: Finished) -> int:
    """Returns D, by the NLL in nats and in bits a dimension."""
    return round(one.row["test/nll"] / (one.row["test/bpd"] * math.log(2)))


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns a row per cell, with its loss beside the published settings of the same seed."""
    found = []
    for one in finished:
        seed = [other for other in finished if other.cell.seed == one.cell.seed]
        network, change, objective = one.cell.labels.values()
        loss = losses(seed, (network, change, objective), (network, PUBLISHED, objective))
        values = {} if loss is None else {"loss": loss.value, "loss_se": loss.se}
        found.append(one.row | values)
    return found


def conclude(finished: Sequence[Finished]) -> Conclusion:
    """Returns claims on every pair of settings, network and objective that ran."""
    claims = decide([*_measured(finished)])
    holding = sum(claim.verdict == "holds" for claim in claims)
    text = f"{holding} of {len(claims)} claims on the published settings hold."
    change = "The paper's length of training, and further seeds."
    return Conclusion(findings=(text,), claims=tuple(claims), would_change=(change,))


def _measured(finished: Sequence[Finished]) -> Iterator[Measured]:
    long = cell.decisive(finished)
    ways = {(one.cell.labels["network"], one.cell.labels["objective"]): None for one in finished}
    for (network, objective), (reference, without, name, least) in product(ways, PAIRS):
        matters = "helps" if least > 0 else "does no harm"
        question = Question(
            claim=f"{network}, {objective}: {name} {matters}.",
            quantity=f"NLL of {without} less that of {reference}",
            units="nats a dimension",
            expected=above(least),
            figure="ablation",
            item="E2" if least > 0 else "E3",
            note="Test rows are the same. Over seeds, or over test rows of a single seed.",
        )
        places = ((network, settings, objective) for settings in (without, reference))
        yield question, losses(finished, *places) if long else None


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    """Returns the losses by setting, and the norms of gradients with and without MaP."""
    return {"ablation": _losses(rows), "gradients": _gradients(finished)}


def _losses(rows: Sequence[Row]) -> Captioned:
    names = [name for name in CHANGES if name != PUBLISHED]
    figure, axis = panels(width=7, height=3.4)
    ways: dict[str, list[tuple[float, int]]] = {}
    for row in rows:
        network, change, objective = row["labels"].values()
        if change in names and "loss" in row:
            place = (row["loss"], names.index(change))
            ways.setdefault(f"{network}, {objective}", []).append(place)
    for marker, (name, places) in zip("os^vdP", ways.items(), strict=False):
        axis.plot(*zip(*places, strict=True), marker, label=name, alpha=0.7)
    axis.axvline(0, color="black", lw=0.8)
    axis.set_xscale("symlog", linthresh=0.01)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlabel="NLL above that of the published settings (nats a dimension)")
    axis.legend(fontsize=7)
    caption = "What a change costs, by network and objective; a point is a seed."
    return figure, caption


def _gradients(finished: Sequence[Finished]) -> Captioned:
    figure, axis = panels(width=7, height=3.2)
    first = [one for one in finished if one.cell.seed == finished[0].cell.seed]
    for one in first:
        network, change, objective = one.cell.labels.values()
        if change in (PUBLISHED, "no-map"):
            steps, norms = gradient_norms(one)
            style = "-" if change == PUBLISHED else "--"
            axis.plot(
                steps, norms, style, marker=".", ms=3, label=f"{network}, {objective}, {change}"
            )
    axis.set(xlabel="step", ylabel="norm of the gradient", yscale="log")
    axis.legend(fontsize=7)
    caption = (
        "Mean norm of the loss's gradient before clipping, of the first seed, with matching after "
        "the preprocessing (published) and without (no-map)."
    )
    return figure, caption


def gradient_norms(one: Finished) -> tuple[list[int], list[float]]:
    """Returns steps, and the mean norms of gradients since the last one."""
    logged = metrics_log.read(one.folders["trained"] / metrics_log.FILE)
    found = metrics_log.curve(logged, "log")
    steps = [row["step"] for row in found]
    return steps, [row["metrics"]["train/grad_norm"] for row in found]


ABLATION = Experiment(
    about="test NLL (nats) of the published settings, and with one of them changed",
    legend="published settings, below scale full with short epochs; no-map: scores matched in "
    "grey levels, where the logit continues linearly outside the range, in float64; no-ema: the "
    "last weights; clipping: the gradient's norm bounded where the paper has no bound, and not "
    "where it has one; above: NLL above the published settings', nats a dimension; last column: "
    "MNIST, at the paper's length of training",
    source="mnist",
    data="grey images",
    uses=cell.IMAGE_OPTIONS | frozenset(cell.CHOICES.values()),
    cells=cells,
    rows=rows,
    columns=(cell.STEPS, Column("loss", "above", 3, interval=False), cell.NLL),
    figures=figures,
    conclude=conclude,
)
