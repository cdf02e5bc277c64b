"""The result of a pipeline.

The last stage of a pipeline creates one ``Result`` and saves it::

    Result(title="A study", conclusion=…, sections=[*plots(figures), *tables], values=…).save(
        config, run
    )

That writes ``summary.json``, ``figures/*.png`` and ``report.html``. The pipeline's graph returns
artefacts by name, ``{"report": …}`` among them. ``renderers.py`` shows the content of
``summary.json`` on a terminal and in Markdown.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.reporting.claims import Conclusion
from pipelines.reporting.renderers import page
from pipelines.store.files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.tracking.run import StageRun

NUMBER = re.compile(r"[-−+]?\d")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: The heading above it.
        headings: The headings of its columns, with units.
        rows: The cells.
        note: The text below it.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """True for each column of numbers; the first column has names."""
        columns = ([row[k] for row in self.rows] for k in range(1, len(self.headings)))
        return (False, *(not any(cells) or any(map(NUMBER.match, cells)) for cells in columns))


@dataclass(frozen=True)
class Plot:
    """A figure of the page.

    Attributes:
        name: The name of its file; claims refer to it.
        figure: The figure.
        caption: One or two sentences.
        title: The heading above it; empty for none.
    """

    name: str
    figure: "Figure"
    caption: str
    title: str = ""


def plots(figures: "Mapping[str, tuple[Figure, str]]") -> list[Plot]:
    """Returns figures with their captions, by name, as plots that have their names as titles."""
    return [Plot(name, figure, text, name) for name, (figure, text) in figures.items()]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a pipeline.

    Attributes:
        title: The title of the page.
        intro: What was studied, in a few sentences.
        conclusion: Findings, claims and checks.
        warnings: Problems that a reader must not miss, one sentence each.
        headline: The main table, which a terminal and MLflow show too.
        facts: Short texts by their names, for terminal and page.
        sections: Tables and plots of the page, in order.
        metrics: The metrics of the pipeline's MLflow run.
        values: All else in ``summary.json``; single values are parameters of the MLflow run.
    """

    title: str
    intro: str = ""
    conclusion: Conclusion = Conclusion()
    warnings: Sequence[str] = ()
    headline: Table | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Table | Plot] = ()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def save(self, config: Section, run: "StageRun") -> None:
        """Writes the result into a stage's output, and logs it to the stage's MLflow run."""
        run.log_params(config.model_dump())
        (run.output / "figures").mkdir()
        images = {}
        for section in self.sections:
            if isinstance(section, Plot):
                images[section.name] = run.output / "figures" / f"{section.name}.png"
                section.figure.savefig(images[section.name])
        html = page(self, images, command=run.command, config=dump(config))
        (run.output / "report.html").write_text(html)
        write_json(run.output / "summary.json", self.summary())
        run.log_artifacts(run.output)

    def summary(self) -> dict[str, Any]:
        """Returns the content of ``summary.json``: all but introduction and sections."""
        return {
            **self.values,
            **self.metrics,
            **self.conclusion.summary(),
            "warnings": list(self.warnings),
            "title": self.title,
            "headline": None if self.headline is None else asdict(self.headline),
            "facts": dict(self.facts),
            "metrics": list(self.metrics),
        }


def plus_minus(interval: Sequence[float | None], digits: int) -> str:
    """Returns a mean and half its interval, the mean alone without an interval, "" for NaN.

    Arguments:
        interval: The mean and the ends of its interval, which may be missing or NaN.
        digits: Decimals.
    """
    value, _, high = interval
    if math.isnan(value):
        return ""
    if high is None or math.isnan(high):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ± {high - value:.{digits}f}"
