"""Draws figures of measurement pages from their tables: python docs/figures/measured.py."""

import re
from pathlib import Path

from pipelines.reporting.style import BASELINE, DATA, FLOW, panels

FIGURES = Path(__file__).parent
PAGES = FIGURES.parent / "measurements"
SERIES = ((FLOW, "o"), (BASELINE, "s"), (DATA, "^"), ("black", "D"))  # Colour and marker


def table(page: str, heading: str) -> list[list[str]]:
    """Returns the rows of the table whose first column has a heading."""
    text = (PAGES / f"{page}.md").read_text().partition(f"| {heading} |")[2]
    rows = text.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" ") for cell in row.strip("|").split("|")] for row in rows]


def numbers(cell: str) -> list[float]:
    """Returns the numbers in a cell, such as a mean and half of its interval."""
    plain = cell.replace(",", "").replace("−", "-")
    return [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", plain)]


def short(cell: str) -> str:
    """Returns the name in a cell, without sizes and remarks."""
    return re.split("[:(]", cell.replace("`", ""))[0].strip()


def dots(page: str, heading: str, columns: dict[str, int], label: str, scale: str) -> None:
    """Saves a figure with a line for each row and a marker for each column."""
    rows = table(page, heading)
    figure, axis = panels(width=5.5, height=0.6 + 0.32 * len(rows))
    for (colour, marker), (name, column) in zip(SERIES, columns.items(), strict=False):
        found = [(row, numbers(cells[column])) for row, cells in enumerate(rows)]
        places = [row for row, values in found if values]
        values = [values[0] for _, values in found if values]
        axis.plot(values, places, marker, color=colour, label=name)
    axis.set_yticks(range(len(rows)), [short(cells[0]) for cells in rows])
    axis.set(xlabel=label, xscale=scale)
    axis.invert_yaxis()
    if len(columns) > 1:
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    figure.savefig(FIGURES / f"{page}.png")


def leads(page: str, heading: str, columns: dict[str, int], label: str) -> None:
    """Saves a figure with leads of each row and their intervals, and a marker for each column."""
    rows = table(page, heading)
    figure, axis = panels(width=5.5, height=0.9 + 0.4 * len(rows))
    pairs = zip(SERIES, columns.items(), strict=False)
    for k, ((colour, marker), (name, column)) in enumerate(pairs):
        places = [row + 0.25 * k for row in range(len(rows))]
        values, halves = zip(*(numbers(cells[column]) for cells in rows), strict=True)
        axis.errorbar(values, places, xerr=halves, fmt=marker, color=colour, capsize=3, label=name)
    axis.axvline(0, color=DATA, linestyle="--")
    axis.set_yticks(range(len(rows)), [short(cells[0]) for cells in rows])
    axis.set_xscale("symlog", linthresh=1, linscale=2)
    axis.set(xlabel=label, xlim=(-4, 12), xticks=(-3, -1, -0.5, 0, 0.5, 1, 3, 10))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.invert_yaxis()
    figure.savefig(FIGURES / f"{page}.png")


def intervals(page: str, heading: str, column: int, label: str) -> None:
    """Saves a figure with the number and the interval of each row, as in "7.4 [6.8, 8.1]".

    A number without an interval is a point.
    """
    rows = table(page, heading)
    figure, axis = panels(width=5.5, height=0.6 + 0.32 * len(rows))
    for row, cells in enumerate(rows):
        value, *ends = numbers(cells[column])
        low, high = ends or (value, value)
        spread = [[value - low], [high - value]]
        axis.errorbar(value, row, xerr=spread, fmt="o", color=FLOW, capsize=3)
    axis.set_yticks(range(len(rows)), [", ".join(map(short, cells[:2])) for cells in rows])
    axis.set(xlabel=label)
    axis.set_xlim(left=0)
    axis.margins(y=0.25)
    axis.invert_yaxis()
    figure.savefig(FIGURES / f"{page}.png")


def over(page: str, heading: str, rivals: dict[str, int], label: str) -> None:
    """Saves a figure with ebflow's lead over each rival: the second column is ebflow's."""
    rows = table(page, heading)
    figure, axis = panels(width=5.5, height=0.6 + 0.32 * len(rows))
    for marker, (name, column) in zip("osX^Dv", rivals.items(), strict=False):
        found = [numbers(cells[column])[0] - numbers(cells[1])[0] for cells in rows]
        axis.plot(found, range(len(rows)), marker, label=name)
    axis.axvline(0, color=DATA, linestyle="--")
    axis.set_yticks(range(len(rows)), [short(cells[0]) for cells in rows])
    axis.set(xlabel=label)
    axis.invert_yaxis()
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    figure.savefig(FIGURES / f"{page}.png")


def decided() -> None:
    """Saves a figure of the overview: leads in units of half their interval."""
    rows = table("overview", "ebflow is better …")
    figure, axis = panels(width=6.5, height=0.6 + 0.32 * len(rows))
    for row, cells in enumerate(rows):
        lead, half = numbers(cells[1])[:2]
        axis.plot(lead / half, row, "o", color=FLOW if lead > half else BASELINE)
    axis.axvline(1, color=DATA, linestyle="--")
    names = [re.sub(r"\]\(.*?\)|[\[*]", "", cells[0]) for cells in rows]
    axis.set_yticks(range(len(rows)), [name.split(",")[0] for name in names])
    axis.set(xlabel="lead / half of its interval", xlim=(0, 2.2))
    axis.invert_yaxis()
    figure.savefig(FIGURES / "overview.png")


if __name__ == "__main__":
    dots("steps", "objective", {"D = 784": 1, "D = 3136": 2}, "ms a step", "log")
    dots("rivals", "method", {"whitened": 2, "standardized": 3}, "test NLL in nats", "linear")
    nlls = {"dense, published settings": 1, "dense, recipe": 2, "CNN, recipe": 5}
    dots("paper", "objective", nlls, "test NLL in nats", "linear")
    dots("time", "job", {"first run": 2}, "seconds", "log")
    places = {"weak network": 1, "network": 2, "curves": 3, "orders": 4}
    dots("known", "fit", places, "nats from the truth", "log")
    dots("library", "call", {"measured": 1, "goal": 2}, "seconds", "linear")
    cosines = {"A1": 2, "A3": 4}
    dots("gradient-alignment", "model", cosines, "mean cosine", "linear")
    decided()
    intervals("phases", "activation", 2, "nats below the Gaussian")
    imputers = ("miceforest", "MissForest", "BayesianRidge", "mixture", "Gaussian")
    rivals = {name: k + 2 for k, name in enumerate(imputers)}
    over("missing", "table", rivals, "CRPS: ebflow's lead")
    flows = {"the default flow": 5, "refined by trees": 6}
    leads("tables", "table (rows × columns)", flows, "lead over the best other, in nats")
