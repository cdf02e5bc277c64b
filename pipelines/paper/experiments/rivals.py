"""Ways to train the likelihood of linear layers, all for the same seconds on the same machine.

Every method trains the same net, with and without whitening, at the same learning rates, of which
the best by the mean validation NLL over seeds is told. Whatever is trained, the NLL is exact, of
the map from data to latent.
"""

__all__ = ["RATES", "RIVALS", "cells", "figures", "rows"]

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ebflow.checkpoint import load
from ebflow.rivals import inverse_error
from pipelines.config import (
    PEERS,
    AnchorConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PaperConfig,
    PreprocessConfig,
    TrainConfig,
)
from pipelines.config.recipes import for_source
from pipelines.paper.experiments.cell import Cell, Column, Experiment, Folders, PeerCell, Row
from pipelines.paper.experiments.peers import (
    LOG_PROBS,
    SHRINKAGE,
    WHITENED,
    gained,
    measured,
    peer,
    told,
)
from pipelines.paper.experiments.settings import EVERY, IMAGE_OPTIONS, bounds, data

SECONDS = 10.0
STEPS = 40_000
RATES = (5e-4, 1.5e-3, 5e-3)
SMOKE_RATE = RATES[1]
SIGMA = 0.1
"""Noise of denoising score matching, beside the anchor."""

DENSE = ModelConfig(depth=2, activation="spline")
INVERSES = DENSE.model_copy(update={"linear": "learned_inverse"})
CIRCULAR = ModelConfig(architecture="convolutional", padding="circular", activation="spline")

METHODS: dict[str, tuple[str, ModelConfig]] = {
    "ml": ("ml", DENSE),
    "relative": ("relative_ml", DENSE),
    "lazy_ml": ("lazy_ml", DENSE),
    "lu": ("ml", DENSE.model_copy(update={"linear": "lu"})),
    "selfnorm": ("self_normalizing", INVERSES),
    "freeform": ("free_form", INVERSES),
    "dsm": ("dsm", DENSE),
    "ssm_vr": ("ssm_vr", DENSE),
    "circular": ("ml", CIRCULAR),
}
"""Objective and net of the methods that train a flow."""

FRONTS = {
    "white": PreprocessConfig(normalise="whiten", shrinkage=SHRINKAGE),
    "plain": PreprocessConfig(normalise="standardise"),
}
"""Preprocessing: whitened, or every element standardised alone."""

SOURCE = "digits"

REFERENCE = ("ml", "white")

Key = tuple[str, str]


def cells(config: PaperConfig) -> list[Cell | PeerCell]:
    """Returns one cell a method, preprocessing, rate and seed, and one a peer and seed."""
    names = dict.fromkeys(("ml", *config.methods))
    grids = for_source(config.source or SOURCE)[0].preprocess.grids
    return [cell for seed in config.trials for cell in _cells(config, seed, names, grids)]


def _cells(
    config: PaperConfig, seed: int, names: Mapping[str, Any], grids: bool
) -> Iterator[Cell | PeerCell]:
    rates = (SMOKE_RATE,) if config.scale == "smoke" else RATES
    flows = [name for name in names if name in METHODS]
    fronts = ("white",) if config.scale == "smoke" else FRONTS
    for name, front, rate in product(flows, fronts, rates):
        told = _config(config, seed, name, front, rate, grids)
        labels = {"method": name, "data": front, "lr": f"{rate:g}"}
        yield Cell(labels, told, told.evaluate)
    for name in [name for name in names if name in PEERS]:
        labels = {"method": name, "data": "white" if name in WHITENED else "plain", "lr": ""}
        told = _config(config, seed, "ml", "plain", SMOKE_RATE, grids)
        yield peer(config, labels, name, told, SECONDS)


def _config(
    config: PaperConfig, seed: int, name: str, front: str, rate: float, grids: bool
) -> DensityConfig:
    objective, model = METHODS[name]
    train = TrainConfig(batch_size=100, lr=rate, validate_every=100, threads=config.threads)
    limits = bounds(config, cpu=SECONDS, full=STEPS)
    return DensityConfig(
        seed=seed,
        data=data(config, SOURCE),
        preprocess=FRONTS[front].model_copy(update={"grids": grids}),
        model=model,
        objective=ObjectiveConfig.of(objective, sigma=SIGMA, every=EVERY),
        anchor=AnchorConfig(tolerance=0.2),
        train=train.model_copy(update=limits),
    )


def rows(cells: Sequence[Cell | PeerCell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a method, preprocessing and seed, at the rate that is best by validation.

    A rate counts only if no seed of it diverged. The gain is over ``ml`` behind the whitening,
    test row by test row.
    """
    found: dict[Key, dict[str, list[tuple[Folders, Row]]]] = {}
    for _, folder, row in measured(cells, folders):
        method, front, rate = row["labels"].values()
        found.setdefault((method, front), {}).setdefault(rate, []).append((folder, row))
    seeds = len({row["seed"] for rates in found.values() for r in rates.values() for _, row in r})
    chosen = {key: best for key, rates in found.items() if (best := _best(rates, seeds))}
    reference = {row["seed"]: row for _, row in chosen.get(REFERENCE, [])}
    return [_row(*pair, reference) for best in chosen.values() for pair in best]


def _best(
    rates: Mapping[str, list[tuple[Folders, Row]]], seeds: int
) -> list[tuple[Folders, Row]] | None:
    """Returns the cells of the best rate, of those that have all seeds."""
    whole = [found for found in rates.values() if len(found) == seeds]
    nll = [np.mean([row["best/val_nll"] for _, row in found]) for found in whole]
    return whole[int(np.argmin(nll))] if whole else None


LEFT_OUT = (LOG_PROBS, "baseline/mixture_nll")
"""What is not shown of a row: the mixture has rows of its own."""


def _row(folders: Folders, row: Row, reference: Mapping[int, Row]) -> Row:
    """Returns a row as it is shown: with its gain, step time, curve and inverse's error."""
    shown = {name: value for name, value in row.items() if name not in LEFT_OUT}
    shown |= {"curve": told(folders[0]), "time/step_ms": _step_time(row)}
    if len(folders) > 1:
        error = inverse_error(load(folders[0] / "checkpoint"))
        shown["inverse/percent"] = None if error is None else 100 * error
    beside = reference.get(row["seed"])
    if beside is not None:
        shown["gain"], shown["gain_se"] = gained(row[LOG_PROBS], beside[LOG_PROBS])
    return shown


def _step_time(row: Row) -> float | None:
    """Returns milliseconds a step of what is trained by steps."""
    stepless = row["labels"]["method"] in ("gmm", "kde")
    return None if stepless else 1e3 * row["time/train_s"] / max(row["train/steps"], 1)


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns the first seed's best validation NLL against training seconds, a panel a front."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.subplots(1, len(FRONTS), sharex=True, sharey=True)
    lines = {front: list(_lines(rows, front)) for front in FRONTS}
    every = [line for found in lines.values() for line in found]
    limits = _limits([line.nll[-1] for line in every])
    last = max(line.seconds[-1] for line in every)
    for axis, (front, found) in zip(axes, lines.items(), strict=True):
        axis.set(title=f"{front} data", xlabel="training (s)", ylim=limits, xlim=(0, 1.3 * last))
        _panel(axis, found, last, limits)
    axes[0].set_ylabel("validation NLL, best so far (nats)")
    return {"rivals": figure}


GREYS = ("0.0", "0.4", "0.6")
DASHES = ("-", "--", "-.", ":")
GAP = 0.055
"""Least distance between labels, as a share of the axis."""


class _Line(NamedTuple):
    name: str
    seconds: np.ndarray
    nll: np.ndarray


def _lines(rows: Sequence[Row], front: str) -> Iterator[_Line]:
    for row in rows:
        if row["seed"] == 0 and row["labels"]["data"] == front:
            seconds, nll = np.array(row["curve"]).T
            yield _Line(row["labels"]["method"], seconds, np.minimum.accumulate(nll))


def _limits(ends: Sequence[float]) -> tuple[float, float]:
    """Returns limits that show how trainings end rather than how they begin."""
    low, high = min(ends), float(np.quantile(ends, 0.8))
    spread = max(high - low, 0.02 * abs(low), 1e-3)
    return low - 0.15 * spread, high + 1.5 * spread


def _panel(axis: Axes, lines: Sequence[_Line], last: float, limits: tuple[float, float]) -> None:
    """Draws one line a method, its name behind its end."""
    ends = [float(np.clip(line.nll[-1], *limits)) for line in lines]
    places = _spread(ends, GAP * (limits[1] - limits[0]), limits)
    for index, (line, end, place) in enumerate(zip(lines, ends, places, strict=True)):
        style = {"color": GREYS[index % 3], "ls": DASHES[index % 4]}
        few = len(line.seconds) < 12
        axis.plot(line.seconds, line.nll, marker="o" if few else None, ms=3, lw=1.3, **style)
        axis.annotate(
            line.name, (line.seconds[-1], end), (1.08 * last, place), fontsize=8, va="center",
            color=style["color"], arrowprops={"arrowstyle": "-", "lw": 0.5, **style},
        )  # fmt: skip


def _spread(values: Sequence[float], gap: float, limits: tuple[float, float]) -> list[float]:
    """Returns places near the values, in their order, a gap apart and inside of the limits."""
    order = np.argsort(values, kind="stable")
    places = np.array(values, dtype=float)[order]
    steps = gap * np.arange(len(places))
    room = limits[0] + gap / 2 + steps, limits[1] - gap / 2 - steps[::-1]
    up = np.maximum.accumulate(places - steps) + steps
    down = np.minimum.accumulate((places - steps)[::-1])[::-1] + steps
    found = np.empty(len(places))
    found[order] = np.minimum(np.maximum((up + down) / 2, room[0]), room[1])
    return found.tolist()


RIVALS = Experiment(
    about="linear layers trained by likelihood for equal seconds: exact test NLL (nats)",
    legend="white: whitened, plain: standardised data; lr: of the same rates the best by "
    "validation; R: error of learned inverses, ‖RW − I‖ / √D; gain over ml on white data, row by "
    "row; ±: 95 %, over seeds, or test rows of one seed; maf, nsf, gmm, kde: other packages' "
    "densities, without those that are not for so many rows or columns",
    note="",
    source="digits",
    uses=IMAGE_OPTIONS | {"methods"},
    cells=cells,
    columns=(
        Column("time/train_s", "s", 0, interval=False),
        Column("time/step_ms", "ms", 1, interval=False),
        Column("inverse/percent", "R (%)", 1, interval=False),
        Column("test/nll", "NLL", 2, "nll", error="test/nll_se"),
        Column("gain", "gain", 2, error="gain_se"),
    ),
    rows=rows,
    figures=figures,
)
