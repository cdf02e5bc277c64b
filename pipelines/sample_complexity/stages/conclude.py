"""From the rows of all cells to exponents, claims, figures and a page."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipelines.reporting import studies
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.exponents import answer, questions
from pipelines.sample_complexity.figures import figures
from pipelines.sample_complexity.results import INTRO, RESULTS, TITLE
from pipelines.sample_complexity.rows import read
from pipelines.sample_complexity.tables import tables
from pipelines.sample_complexity.verdicts import conclusion
from pipelines.tracking.run import StageRun


def conclude(config: ComplexityConfig, found: Sequence[Path], *, run: StageRun) -> None:
    """Writes ``results.parquet``, and what all studies leave."""
    rows = read(found)
    rows.to_parquet(run.output / RESULTS)
    answers = [answer(question, rows, seed=config.seed) for question in questions(config)]
    costs = [json.loads((folder / "evaluation.json").read_text()) for folder in found]
    seconds = [cost["study/cpu_s"] for cost in costs]
    cost = {
        "study/cells": len(seconds),
        "study/cpu_s": sum(seconds),
        "study/cpu_s_a_cell": sum(seconds) / len(seconds),
    }
    exponents, seeds = [one.exponent for one in answers], {"study": config.seed}
    studies.write(
        run, config, TITLE, INTRO, conclusion(config, answers, rows),
        figures(config, answers, rows), tables(config, answers, rows),
        {"exponents": exponents, "cost": cost, "seeds": seeds},
    )  # fmt: skip
