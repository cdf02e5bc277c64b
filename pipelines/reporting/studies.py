"""What the last stage of a study leaves: numbers with what they conclude, figures and a page."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.reporting import claims, pages, runs
from pipelines.reporting.style import STYLE, Captioned, draw
from pipelines.tracking import StageRun


def write(
    output: Path,
    run: StageRun,
    config: Section,
    title: str,
    intro: str,
    conclusion: claims.Conclusion,
    figures: Callable[[], Mapping[str, Captioned]],
    tables: Sequence[claims.Table],
    numbers: Mapping[str, Any],
) -> None:
    """Writes ``numbers.json``, ``figures/*.png`` and ``report.html``.

    Arguments:
        output: The folder.
        run: The stage's run, which is told of all.
        config: The study.
        title: Of the page.
        intro: What was studied, in a few sentences.
        conclusion: What was found.
        figures: Makes the figures, by the names that claims have.
        tables: Further numbers on the page.
        numbers: What ``summary.json`` has besides the conclusion.
    """
    run.log_params(config.model_dump())
    with matplotlib.rc_context(STYLE):
        made = figures()
    files = draw(lambda: {name: figure for name, (figure, _) in made.items()}, output)
    captions = {name: caption for name, (_, caption) in made.items()}
    page = pages.render(
        claims.TEMPLATE, files, title=title, intro=intro, conclusion=conclusion,
        captions=captions, tables=tables, config=dump(config),
    )  # fmt: skip
    (output / runs.PAGE).write_text(page)
    whole = {**numbers, **asdict(conclusion)}
    (output / claims.NUMBERS).write_text(json.dumps(whole, indent=1) + "\n")
    run.log_artifacts(output)
