"""A result on a terminal, in Markdown (the description of its MLflow run) and as a page.

Terminal and Markdown show the content of ``summary.json``; the page has tables and plots, too.
"""

import base64
import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from rich.console import Console

from pipelines.cluster.environment import cpus
from pipelines.reporting.terminal import table
from pipelines.tracking.backend import pages
from pipelines.tracking.provenance import code

if TYPE_CHECKING:
    from pipelines.reporting.result import Result

Summary = Mapping[str, Any]

CLAIMS = ("claim", "number [95 %]", "expected", "verdict")

CPU = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


def show(console: Console, summary: Summary) -> None:
    """Prints the result of a run, and where everything is.

    Arguments:
        console: The terminal.
        summary: The content of ``summary.json``, ``files``, and ``stages`` with their states.
    """
    console.print(f"{summary['name']}: {summary['title']}")
    for finding in summary["findings"]:
        console.print(finding)
    if headline := summary["headline"]:
        wide = table(headline["headings"], headline["rows"])
        narrow = console.measure(wide).minimum > console.width
        console.print(table(headline["headings"], headline["rows"], wrap=True) if narrow else wide)
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


def _show_claims(console: Console, summary: Summary) -> None:
    """Prints claims, the number of checks by verdict, and the checks that did not pass."""
    claims = table(CLAIMS, _claims(summary, "\n"), wrap=True)
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


def _claims(summary: Summary, separator: str) -> Iterator[tuple[str, ...]]:
    """Yields the rows of the table of claims."""
    for one in summary["claims"]:
        number = separator.join(filter(None, (one["quantity"], one["estimate"])))
        yield one["claim"], number, one["expected"], one["verdict"]


def markdown(summary: Summary) -> str:
    """Returns warnings, findings, main table and claims."""
    return "\n\n".join(filter(None, _paragraphs(summary)))


def _paragraphs(summary: Summary) -> Iterator[str]:
    yield from (f"Warning: {text}" for text in summary["warnings"])
    yield " ".join(summary["findings"])
    if headline := summary["headline"]:
        yield _markdown_table(headline["headings"], headline["rows"])
        yield headline["note"]
    if summary["claims"]:
        yield _markdown_table(CLAIMS, _claims(summary, " "))
    yield " ".join(summary["would_change"])


def _markdown_table(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown, the first column to the left and all others to the right."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, rule, *lines))


def page(result: "Result", images: Mapping[str, Path], *, command: str, config: str) -> str:
    """Returns the page of a result, in HTML that needs no other file.

    Arguments:
        result: The result.
        images: PNG files by the names of the plots.
        command: The command that reproduces it.
        config: The configuration as YAML.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    encoded = {name: base64.b64encode(path.read_bytes()).decode() for name, path in images.items()}
    values = {"result": result, "command": command, "created": _created(), "config": config}
    return environment.get_template("page.html.j2").render(images=encoded, **values)


def _created() -> str:
    """Returns the time, the code and the machine."""
    versions = code()
    commit = versions["commit"] or ""
    text = f", commit {commit[:12]}{'+' if commit.endswith('+') else ''}" if commit else ""
    time = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return f"{time} by ebflow {versions['ebflow']}{text}, torch {versions['torch']}, {machine()}"


@cache
def machine() -> str:
    """Returns the cores of this machine and their model."""
    info = Path("/proc/cpuinfo")
    model = CPU.search(info.read_text()) if info.exists() else None
    return f"{cpus()} × {model[1] if model else platform.machine()}"
