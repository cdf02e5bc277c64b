"""The description of a run in MLflow, in Markdown: subject, results and command."""

from collections.abc import Mapping, Sequence

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""


def note(about: str, command: str, results: str = "") -> str:
    """Returns the description.

    Arguments:
        about: The subject of the run.
        command: The command that reproduces it.
        results: The results; empty while it runs.
    """
    again = f"To reproduce it:\n\n```sh\n{command}\n```" if command else ""
    return "\n\n".join(filter(None, (about, results, again)))


def table(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, the first column to the left and all others to the right."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, rule, *lines))


def numbers(metrics: Mapping[str, float]) -> str:
    """Returns a table of metrics by name; empty if there are none."""
    lines = [(f"`{name}`", f"{value:.6g}") for name, value in sorted(metrics.items())]
    return table(("metric", "value"), lines) if lines else ""
