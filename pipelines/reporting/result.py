"""The result of a pipeline.

The last stage of a pipeline creates one ``Result`` and saves it::

    Result(title="A study", conclusion=…, sections=[*plots(figures), *tables], values=…).save(
        config, run
    )

That writes ``summary.json``, ``figures/*.png`` and ``report.html``. The pipeline's graph returns
artefacts by name, ``{"report": …}`` among them. The terminal, and the description of the MLflow
run, show the content of ``summary.json``.
"""

import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.reporting.claims import Conclusion
from pipelines.reporting.page import page
from pipelines.store.files import write_json
from pipelines.tracking.backend import pages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.tracking.run import StageRun

CLAIMS = ("claim", "number [95 %]", "expected", "verdict")

NUMBER = re.compile(r"[-−+]?\d")


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str  #: The heading above it
    headings: Sequence[str]  #: The headings of its columns, with units
    rows: Sequence[Sequence[str]]  #: The cells
    note: str = ""  #: The text below it

    @property
    def numeric(self) -> tuple[bool, ...]:
        """True for each column of numbers; the first column has names."""
        columns = ([row[k] for row in self.rows] for k in range(1, len(self.headings)))
        return (False, *(not any(cells) or any(map(NUMBER.match, cells)) for cells in columns))


@dataclass(frozen=True)
class Drawn:
    """A figure that another result has drawn."""

    path: Path  #: Its PNG file

    def savefig(self, path: Path) -> None:
        """Copies the file."""
        shutil.copyfile(self.path, path)


@dataclass(frozen=True)
class Plot:
    """A figure of the page."""

    name: str  #: The name of its file; claims refer to it
    figure: "Figure | Drawn"  #: The figure
    caption: str  #: One or two sentences
    title: str = ""  #: The heading above it; empty for none


def plots(figures: "Mapping[str, tuple[Figure, str]]") -> list[Plot]:
    """Returns figures with their captions, by name, as plots that have their names as titles."""
    return [Plot(name, figure, text, name) for name, (figure, text) in figures.items()]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a pipeline."""

    title: str  #: The title of the page
    intro: str = ""  #: What was studied, in a few sentences
    conclusion: Conclusion = Conclusion()  #: Findings, claims and checks
    warnings: Sequence[str] = ()  #: Problems that a reader must not miss, one sentence each
    headline: Table | None = None  #: The main table, which a terminal and MLflow show too
    #: Short texts by their names, for terminal and page
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Table | Plot] = ()  #: Tables and plots of the page, in order
    #: The metrics of the pipeline's MLflow run
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    #: All else in ``summary.json``; single values are parameters of the MLflow run
    values: Mapping[str, Any] = field(default_factory=dict)

    def save(self, config: Section, run: "StageRun") -> None:
        """Writes the result into a stage's output, and logs it to the stage's MLflow run."""
        run.log_params(config.model_dump())
        (run.output / "figures").mkdir()
        images = {}
        for section in self.sections:
            if isinstance(section, Plot):
                images[section.name] = run.output / "figures" / f"{_file_name(section.name)}.png"
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


def _file_name(name: str) -> str:
    """Returns a name without characters that files cannot have everywhere."""
    return re.sub(r"[^\w.-]+", "-", name)


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the result of a run, and where everything is.

    Arguments:
        console: The terminal.
        summary: The content of ``summary.json``, ``files``, and ``stages`` with their states.
    """
    console.print(f"{summary['name']}: {summary['title']}")
    for finding in summary["findings"]:
        console.print(finding)
    if headline := summary["headline"]:
        wide = grid(headline["headings"], headline["rows"])
        narrow = console.measure(wide).minimum > console.width
        console.print(grid(headline["headings"], headline["rows"], wrap=True) if narrow else wide)
        console.print(headline["note"])
    if summary["claims"]:
        _show_claims(console, summary)
    stages = ", ".join(f"{stage} {state}" for stage, state in summary["stages"].items())
    warnings = {f"warning {k}": text for k, text in enumerate(summary["warnings"], 1)}
    lines = {**warnings, **summary["facts"], "stages": stages, **summary["files"]}
    lines["to look"] = pages()
    width = max(map(len, lines))
    for name, text in lines.items():
        console.print(f"{name:<{width}} {text}", soft_wrap=True)


def _show_claims(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints claims, the number of checks by verdict, and the checks that did not pass."""
    claims = grid(CLAIMS, _claims(summary, "\n"), wrap=True)
    claims.columns[-1].no_wrap = True  # a verdict is read at once
    console.print(claims)
    counts = Counter(check["verdict"] for check in summary["checks"])
    line = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    console.print(f"checks of the instrument: {line or 'none'}")
    for check in summary["checks"]:
        if not check["passed"]:
            value = "" if check["value"] is None else f"{check['value']:.3g}, "
            text = f"{check['check']} ({value}expected {check['expected']})"
            console.print(f"  {check['verdict']}: {text}")


def _claims(summary: Mapping[str, Any], separator: str) -> Iterator[tuple[str, ...]]:
    """Yields the rows of the table of claims."""
    for one in summary["claims"]:
        number = separator.join(filter(None, (one["quantity"], one["estimate"])))
        yield one["claim"], number, one["expected"], one["verdict"]


def markdown(summary: Mapping[str, Any]) -> str:
    """Returns warnings, findings, main table and claims."""
    parts = [*(f"Warning: {text}" for text in summary["warnings"]), " ".join(summary["findings"])]
    if headline := summary["headline"]:
        parts += [_markdown_table(headline["headings"], headline["rows"]), headline["note"]]
    if summary["claims"]:
        parts.append(_markdown_table(CLAIMS, _claims(summary, " ")))
    return "\n\n".join(filter(None, [*parts, " ".join(summary["would_change"])]))


def _markdown_table(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown, the first column to the left and all others to the right."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, rule, *lines))


def grid(headings: Sequence[str], lines: Iterable[Sequence[Any]], *, wrap: bool = False) -> Grid:
    """Returns a table, whose first column is aligned to the left, and all others to the right.

    Arguments:
        headings: The headings of its columns.
        lines: The cells.
        wrap: True if other columns than the first may take several lines, too.
    """
    found = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for k, heading in enumerate(headings):
        side: Any = "right" if k else "left"
        found.add_column(heading, justify=side, no_wrap=bool(k) and not wrap)
    for line in lines:
        found.add_row(*line)
    return found


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


def unequal_steps(compared: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a warning if time limits ended trainings, whose metrics these are, unequally."""
    steps = {one["train/steps"] for one in compared if "train/steps" in one}
    if len(steps) < 2 or not any(one.get("train/time_limited") for one in compared):
        return []
    spread = f"after {min(steps):,.0f} to {max(steps):,.0f} steps"
    return [f"time limits ended the trainings {spread}: they are compared at equal seconds"]
