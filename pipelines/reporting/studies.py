"""What the last stage of a study leaves: numbers with what they conclude, figures and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.reporting import claims, pages
from pipelines.reporting.result import Table
from pipelines.reporting.style import Captioned, draw
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

TEMPLATE = Path(__file__).with_name("claims.html.j2")


def write(
    run: StageRun,
    config: Section,
    title: str,
    intro: str,
    conclusion: claims.Conclusion,
    figures: Mapping[str, Captioned],
    tables: Sequence[Table],
    numbers: Mapping[str, Any],
) -> None:
    """Writes ``numbers.json``, ``figures/*.png`` and ``report.html``.

    Arguments:
        run: The stage's run, whose output is filled, and which is told of all.
        config: The study.
        title: Of the page.
        intro: What was studied, in a few sentences.
        conclusion: What was found.
        figures: By the names that claims have.
        tables: Further numbers on the page.
        numbers: What ``summary.json`` has besides the conclusion.
    """
    run.log_params(config.model_dump())
    files = draw({name: figure for name, (figure, _) in figures.items()}, run.output)
    captions = {name: caption for name, (_, caption) in figures.items()}
    page = pages.render(
        TEMPLATE, files, title=title, intro=intro, conclusion=conclusion,
        captions=captions, tables=tables, config=dump(config),
    )  # fmt: skip
    (run.output / "report.html").write_text(page)
    write_json(run.output / claims.NUMBERS, {**numbers, **asdict(conclusion)})
    run.log_artifacts(run.output)
