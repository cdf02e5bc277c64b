"""From the rows of all cells to the result: exponents, claims, figures and tables."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipelines.reporting.result import Result, plots
from pipelines.sample_complexity.claims import conclusion
from pipelines.sample_complexity.config import INTRO, TITLE, ComplexityConfig
from pipelines.sample_complexity.exponents import exponents
from pipelines.sample_complexity.figures import figures
from pipelines.sample_complexity.rows import read
from pipelines.sample_complexity.tables import tables
from pipelines.tracking.run import StageRun


def conclude(config: ComplexityConfig, cells: Sequence[Sequence[Path]], *, run: StageRun) -> None:
    """Writes ``results.parquet``, with the rows of all cells, and the result."""
    folders = [folder for cell in cells for folder in cell]
    rows = read(folders)
    rows.to_parquet(run.output / "results.parquet")
    slopes = exponents(config, rows)
    costs = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
    seconds = sum(cost["study/cpu_s"] for cost in costs)
    Result(
        title=TITLE,
        intro=INTRO,
        conclusion=conclusion(config, slopes, rows),
        facts={"cost": f"{len(cells)} cells, {seconds / len(cells):.2f} s of a core each"},
        sections=[*plots(figures(config, slopes, rows)), *tables(config, slopes, rows)],
        metrics={
            "study/cells": len(cells),
            "study/cpu_s": seconds,
            "study/cpu_s_a_cell": seconds / len(cells),
        },
        values={"exponents": [one.summary for one in slopes], "seeds": {"study": config.seed}},
    ).save(config, run)
