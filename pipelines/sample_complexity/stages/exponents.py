"""From the tables of all cells to one, and to crossing points with their growth."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.results import Question, answer, busy, questions
from pipelines.sample_complexity.stages.learn import COST, ROWS
from pipelines.tracking import StageRun

RESULTS, ANSWERS, BUSY = "results.parquet", "answers.json", "cost.json"


def exponents(
    config: ComplexityConfig, found: Sequence[Path], *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes ``results.parquet``, ``answers.json`` and ``cost.json``."""
    run.log_params(config.model_dump())
    tables = [pq.read_table(folder / ROWS) for folder in found]
    rows = pa.concat_tables(tables, promote_options="permissive")
    pq.write_table(rows, output / RESULTS)
    answers = [
        answer(question, rows, epsilon=config.grid.epsilon, seed=config.seed)
        for question in questions(config)
    ]
    (output / ANSWERS).write_text(json.dumps([asdict(one) for one in answers], indent=1) + "\n")
    cost = busy([json.loads((folder / COST).read_text()) for folder in found])
    (output / BUSY).write_text(json.dumps(cost, indent=1) + "\n")
    slopes = {f"study/{_name(one.question)}": one.slope.value for one in answers if one.slope}
    run.log_metrics({**cost, **slopes})


def _name(question: Question) -> str:
    """Returns a name for a metric, which MLflow lets have no other signs than these."""
    name = f"{question.quantity} against {question.against}, {question.named}"
    return re.sub(r"[^\w.:/ -]", "", name)
