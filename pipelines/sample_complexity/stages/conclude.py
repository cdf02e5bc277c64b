"""From the results of the study of sample complexity to claims, figures and a page."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ebflow.complexity.crossing import Growth
from ebflow.inference import Interval
from pipelines.reporting.claims import Figure
from pipelines.reporting.style import draw
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.figures import CAPTIONS, figures
from pipelines.sample_complexity.report import page
from pipelines.sample_complexity.results import Answer, Question
from pipelines.sample_complexity.stages.exponents import ANSWERS, BUSY, RESULTS
from pipelines.sample_complexity.verdicts import conclusion
from pipelines.tracking import StageRun


def conclude(
    config: ComplexityConfig, fitted: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes ``numbers.json``, ``figures/*.png`` and ``report.html``."""
    run.log_params(config.model_dump())
    rows = pq.read_table(fitted / RESULTS)
    answers = [_answer(stored) for stored in json.loads((fitted / ANSWERS).read_text())]
    cost = json.loads((fitted / BUSY).read_text())
    concluded = conclusion(config, answers, rows)
    files = draw(lambda: figures(config, answers, rows), output)
    drawn = {name: Figure(file, CAPTIONS[name]) for name, file in files.items()}
    (output / "report.html").write_text(page(config, concluded, answers, rows, cost, drawn))
    numbers = {"exponents": [one.exponent for one in answers], **asdict(concluded), "cost": cost}
    (output / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")
    run.log_artifacts(output)


def _answer(stored: dict[str, Any]) -> Answer:
    question = stored["question"]
    listed = {name: tuple(map(tuple, question[name])) for name in ("fixed", "bounds")}
    return Answer(
        Question(**{**question, **listed}),
        tuple(stored["values"]),
        _growth(*stored["growth"]),
        stored["power"],
    )


def _growth(crossings: list[list[float]], slopes: list[float], units: int) -> Growth:
    return Growth([Interval(*three) for three in crossings], slopes, units)
