"""Linear layers trained by likelihood in several ways, at equal seconds.

Every method trains the same network, with and without whitening, at the same learning rates. The
table has the rate with the best mean validation NLL over seeds. For every method the NLL is the
exact one of the map from data to latent. Beside them stand densities of other packages, *peers*.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product

import numpy as np
import pandas as pd

from pipelines.config import (
    AnchorConfig,
    Dense,
    DensityConfig,
    Objective,
    PreprocessConfig,
    PreprocessFit,
)
from pipelines.config.recipes import for_source
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig, RivalConfig
from pipelines.reporting.style import Captioned, panels

SHRINKAGE = 0.01
"""Shrinkage of the whitening."""

PEERS = ("gmm", "maf", "nsf")
"""Densities of other packages."""

DASHES = ("-", "--", "-.", ":")


def peer(
    config: PaperConfig, labels: Mapping[str, str], name: str, flow: DensityConfig, seconds: float
) -> Cell:
    """Returns the cell of a peer that has the data and seconds of a flow.

    Its preprocessing dequantizes as the flow's does, so that both are densities of the same rows.
    The configuration's ``seconds`` replace ``seconds``.
    """
    options = {"seconds": config.seconds or seconds, "threads": config.threads}
    if config.scale == "smoke":
        options["steps"] = cell.SMOKE_STEPS
    changes = {"normalize": "standardize", "shrinkage": 0.0, "tails": False}
    preprocess = PreprocessFit(
        seed=flow.seed, options=flow.preprocess.changed(**changes), threads=config.threads
    )
    fitted = RivalConfig(rival=name, seed=flow.seed, **options)
    return Cell(labels, fitted, flow.seed, flow.data, preprocess, stage="peer")


SECONDS = 10.0
LENGTH = 40_000
RATES = (5e-4, 1.5e-3, 5e-3)
SMOKE_RATE = RATES[1]

DENSE = Dense(depth=2, activation="spline")
METHODS: dict[str, tuple[str, Dense]] = {
    "ml": ("ml", DENSE),
    "relative": ("relative_ml", DENSE),
    "lazy_ml": ("lazy_ml", DENSE),
    "lu": ("ml", DENSE.changed(linear="lu")),
    "dsm": ("dsm", DENSE),
    "ssm_vr": ("ssm_vr", DENSE),
    "dsm alone": ("dsm", DENSE),
    "ssm_vr alone": ("ssm_vr", DENSE),
}
"""Objective and network of the methods that train a flow.

*Alone*, no step computes a determinant, inverse or factorization: the unnormalized density is
trained, and the normalizer is that of the trained matrices. That needs a start whose activations
have no mean to undo; learned ones start as the identity."""

SIGMA, ALONE_SIGMA = 0.1, 0.3
"""Noise of denoising score matching beside the anchor, and alone."""

PREPROCESSINGS = {
    "white": PreprocessConfig(normalize="whiten", shrinkage=SHRINKAGE),
    "plain": PreprocessConfig(normalize="standardize"),
}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per method, preprocessing and rate, and one per peer."""
    smoke = config.scale == "smoke"
    rates = (SMOKE_RATE,) if smoke else RATES
    preprocessings = ("white",) if smoke else PREPROCESSINGS
    for name, preprocessing, rate in product(METHODS, preprocessings, rates):
        labels = {"method": name, "data": preprocessing, "lr": f"{rate:g}"}
        yield Cell.of_flow(labels, _flow(config, seed, name, preprocessing, rate))
    flow = _flow(config, seed, "ml", "plain", SMOKE_RATE)
    for name in PEERS:
        yield peer(config, {"method": name, "data": "plain", "lr": ""}, name, flow, SECONDS)


def _flow(
    config: PaperConfig, seed: int, name: str, preprocessing: str, rate: float
) -> DensityConfig:
    objective, model = METHODS[name]
    flow = cell.base(
        config, seed, "digits", cpu=SECONDS, full=LENGTH, recipe=DensityConfig,
        batch_size=100, lr=rate, validate_every=100,
    )  # fmt: skip
    grids = for_source(flow.data)[0].preprocess.grids
    beside = {"sigma": SIGMA, "every": cell.EVERY}, AnchorConfig(tolerance=0.2)
    alone = {"sigma": ALONE_SIGMA}, AnchorConfig(weight=0.0)
    options, anchor = alone if name.endswith("alone") else beside
    return flow.changed(
        preprocess=PREPROCESSINGS[preprocessing].changed(grids=grids),
        model=model,
        objective=Objective.of(objective, **options),
        anchor=anchor,
    )


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per method, preprocessing and seed, at the rate that is best by validation.

    A rate counts only if no seed of it diverged. The gain is over ``ml`` on whitened data of the
    seed. The mixture has rows of its own, so the rows of trainings do not name it as a baseline.
    """
    cells = {(*one.cell.labels.values(), one.cell.seed): one for one in finished}
    nlls = pd.Series({key: one.row["best/val_nll"] for key, one in cells.items()})
    means = nlls.unstack().mean(axis=1, skipna=False).dropna()
    best = {*means.groupby(level=[0, 1]).idxmin()}
    chosen = {key: one for key, one in cells.items() if key[:-1] in best}
    exact = {key[-1]: one for key, one in chosen.items() if key[:2] == ("ml", "white")}
    return [_row(one, exact.get(one.cell.seed)) for one in chosen.values()]


def _row(one: Finished, exact: Finished | None) -> Row:
    """Returns the gain and the time of a step."""
    row = one.compared(exact, "gain")
    row.pop("baseline/mixture_nll", None)
    if one.cell.labels["method"] != "gmm":
        row["time/step_ms"] = 1e3 * row["time/train_s"] / max(row["train/steps"], 1)
    return row


def curves(rows: Sequence[Row]) -> Captioned:
    """Returns a figure of the first seed's best validation NLL so far against training seconds."""
    trainings: dict[str, dict[str, Sequence[Sequence[float]]]] = {}
    for row in (row for row in rows if row["seed"] == rows[0]["seed"]):
        method, data, _ = row["labels"].values()
        trainings.setdefault(data, {})[method] = row["curve"]
    count, ends = len(trainings), []
    figure, axes = panels(count, 5 * count, 4.6, sharex=True, sharey=True, squeeze=False)
    for axis, (data, lines) in zip(axes[0], trainings.items(), strict=True):
        for (method, points), dashes in zip(lines.items(), cycle(DASHES), strict=False):
            seconds, nll = np.array(points).T
            best = np.minimum.accumulate(nll)
            axis.plot(seconds, best, label=method, ls=dashes, lw=1.3)
            ends.append(best[-1])
        axis.set(title=f"{data} data", xlabel="training (s)")
        axis.legend(fontsize=7)
    # The limits show the ends of trainings rather than their starts.
    low, high = min(ends), float(np.quantile(ends, 0.8))
    spread = max(high - low, 0.02 * abs(low), 1e-3)
    axes[0, 0].set_ylim(low - 0.15 * spread, high + 1.5 * spread)
    axes[0, 0].set_ylabel("validation NLL, best so far (nats)")
    return figure, "Of the first seed: the best validation NLL so far."


RIVALS = Experiment(
    about="linear layers trained by likelihood for equal seconds: exact test NLL (nats)",
    legend="white: whitened, plain: standardized data; lr: of the same rates the best by "
    "validation; alone: scores in every step, without an anchor; other scores: in one of "
    f"{cell.EVERY} steps beside it; gain over ml on white data, "
    "row by row; ±: 95 %, over seeds, or test rows of one seed; maf, nsf, gmm: other "
    "packages'",
    source="digits",
    cells=cells,
    columns=(
        Column("time/train_s", "s", 0, interval=False),
        Column("time/step_ms", "ms", 1, interval=False),
        Column("test/nll", "NLL", 2),
        Column("gain", "gain", 2),
    ),
    rows=rows,
    figures=lambda rows, finished: {"rivals": curves(rows)},
)
