"""From the rows of all cells to the result: exponents, claims, figures and tables."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.reporting.result import Result, Table, plots, plus_minus
from pipelines.sample_complexity.claims import conclusion
from pipelines.sample_complexity.config import INTRO, TITLE, ComplexityConfig
from pipelines.sample_complexity.data_like import DELTA
from pipelines.sample_complexity.exponents import Exponent, exponents
from pipelines.sample_complexity.figures import figures
from pipelines.sample_complexity.rows import read, where
from pipelines.tracking.run import StageRun

KEYS = {"eta": "η", "learner": "learner", "m": "m", "step": "steps"}
ERRORS = {
    "sigma_l2": "σ L2",
    f"sigma_d_{DELTA:g}": "σ Dᵟ",
    "levels_l2": "σ L2, levels",
    "levels_q": "σ Dᵟ, levels",
    "levels_d": "largest σ Dᵟ, δ/N",
}


def conclude(config: ComplexityConfig, cells: Sequence[Sequence[Path]], *, run: StageRun) -> None:
    """Writes ``results.parquet``, with the rows of all cells, and the result."""
    rows = read([folder for cell in cells for folder in cell])
    rows.to_parquet(run.output / "results.parquet")
    slopes, of_images = exponents(config, rows), where(rows, panel="truths")
    Result(
        title=TITLE,
        intro=INTRO,
        conclusion=conclusion(config, slopes, rows),
        sections=[
            *plots(figures(config, slopes, rows)),
            images(of_images),
            Table(
                "Exponents",
                ("learner", "quantity", "against", "exponent", "m* at each point"),
                list(map(_exponent, slopes)),
                "If the error does not cross ε on the grid of m, there is no point.",
            ),
        ],
        metrics={"study/cells": len(cells)},
        values={"exponents": [one.summary for one in slopes], "seeds": {"study": config.seed}},
    ).save(config, run)


def images(rows: pd.DataFrame) -> Table:
    """Returns the means over training sets."""
    columns = {"n_far": "samples of the mode", **ERRORS}
    errors = rows[[*ERRORS]].div(rows["size"] ** 0.5, axis=0)
    scaled = rows.drop(columns=[*ERRORS]).join(errors)
    means = scaled.groupby([*KEYS], dropna=False)[[*columns]].mean().reset_index()
    return Table(
        "A distribution fitted to images",
        (*KEYS.values(), *columns.values()),
        [tuple(map(_text, line)) for line in means.itertuples(index=False)],
        "Means over training sets; errors over √D, noise in units of a feature's standard "
        "deviation.",
    )


def _text(value: str | float) -> str:
    """Returns a name or a number as text; missing values are empty."""
    if isinstance(value, str) or pd.isna(value):
        return value if isinstance(value, str) else ""
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.3g}"


def _exponent(one: Exponent) -> tuple[str, ...]:
    points = ", ".join(f"{at:.3g}: {m:.0f}" for at, m in one.points[["at", "value"]].to_numpy())
    slope = plus_minus(one.slope.interval(), 2) if one.slope else ""
    return one.series.learner, one.quantity, one.series.against, slope, points
