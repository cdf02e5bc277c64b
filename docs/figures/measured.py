"""Draws figures of measurement pages from their tables: python docs/figures/measured.py."""

import re
from pathlib import Path

from pipelines.reporting.style import BASELINE, FLOW, panels

FIGURES = Path(__file__).parent
PAGES = FIGURES.parent / "measurements"
SERIES = ((FLOW, "o"), (BASELINE, "s"))  # Colour and marker of two columns


def table(page: str, heading: str) -> list[list[str]]:
    """Returns the rows of the table whose first column has a heading."""
    text = (PAGES / f"{page}.md").read_text().partition(f"| {heading} |")[2]
    rows = text.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]


def numbers(cell: str) -> list[float]:
    """Returns the numbers in a cell, such as a mean and half of its interval."""
    return [float(text) for text in re.findall(r"\d+(?:\.\d+)?", cell)]


def dots(page: str, heading: str, columns: dict[str, int], label: str, scale: str) -> None:
    """Saves a figure with a line for each row and a marker for each column."""
    rows = table(page, heading)
    figure, axis = panels(width=5, height=0.5 + 0.32 * len(rows))
    for (colour, marker), (name, column) in zip(SERIES, columns.items(), strict=True):
        found = [(row, numbers(cells[column])) for row, cells in enumerate(rows)]
        places = [row for row, values in found if values]
        values = [values[0] for _, values in found if values]
        axis.plot(values, places, marker, color=colour, label=name)
    names = [re.sub("`", "", cells[0]) for cells in rows]
    axis.set_yticks(range(len(rows)), [re.split("[:,]", name)[0] for name in names])
    axis.set(xlabel=label, xscale=scale)
    axis.invert_yaxis()
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    figure.savefig(FIGURES / f"{page}.png")


dots("steps", "objective", {"D = 784": 1, "D = 3136": 2}, "ms a step", "log")
dots("rivals", "method", {"whitened": 2, "standardized": 3}, "test NLL in nats", "linear")
