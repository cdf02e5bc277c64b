"""What curves of validation NLL against training time say: one table, one figure.

A cell is one training: ``label``, ``seed``, ``seconds``, ``steps`` and ``nll`` (lists, one number
a validation), ``test_nll``.
"""

__all__ = ["Cell", "draw", "table"]

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from pipelines.reporting.style import BASELINE, STYLE

Cell = Mapping[str, Any]
REFERENCE = "ml"
FAILED = "NaN"
TITLE = "validation NLL (nats) against training time, mean over seeds"
CAPTION = (
    "ms: a step's time. ±: half the range of the test NLL over seeds. below: share of exact ML's "
    "validations at which the NLL is not above exact ML's. after: seconds to exact ML's last NLL."
)
ANCHORED = " + anchor"
TIMES = (0.04, 0.13, 0.33, 0.85)
"""Shares of the training time at which the table reads the curves."""

TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
OBJECTIVES = {
    "likelihood": ("relative_ml", "lazy_ml", "recipe mnist9k", "paper ml"),
    "denoising": ("dsm", "dsm + anchor", "paper dsm"),
    "slices": tuple(f"{n}{a}" for n in ("ssm", "ssm_vr", "fd_ssm") for a in ("", ANCHORED)),
}
ANCHOR = {
    "likelihood": ("relative_ml", "lazy_ml", *(f"lazy_ml K = {k}" for k in (20, 100, 500))),
    "anchored DSM: refreshes": ("dsm", "dsm K = 20", "dsm K = 100", "dsm K = 500"),
    "anchored DSM: weight, noise": ("dsm", "dsm w = 0.1 σ²", "dsm w = 10 σ²", "dsm σ = 0.03",
                                    "dsm σ = 0.3", "ssm_vr"),
}  # fmt: skip
PANELS = {"objectives": OBJECTIVES, "anchor": ANCHOR}
"""The labels of a study's entries by panel of the figure; exact ML is in each."""


def table(cells: Sequence[Cell], gaussian: Mapping[str, float], seconds: float) -> Table:
    """Returns the NLL at several times, and how each training stands to exact ML's."""
    made = Table(title=TITLE, title_justify="left", caption=CAPTION, caption_justify="left",
                 box=box.SIMPLE_HEAD, padding=0)  # fmt: skip
    times = [f"{share * seconds:.0f} s" for share in TIMES]
    for name in ("", "ms", *times, "end", "test", "±", "below", "after"):
        made.add_column(name, justify="right" if name else "left", no_wrap=True)
    fit = (f"{gaussian['validation']:.1f}", f"{gaussian['test']:.1f}")
    made.add_row("Gaussian", "", *[""] * len(TIMES), *fit, "", "", "")
    groups = _groups(cells)
    for label, group in groups.items():
        made.add_row(label, *_row(group, groups.get(REFERENCE, []), seconds))
    return made


def _groups(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell["label"], []).append(cell)
    return groups


def _row(group: Sequence[Cell], reference: Sequence[Cell], seconds: float) -> Iterator[str]:
    yield f"{np.mean([1e3 * c['seconds'][-1] / max(c['steps'][-1], 1) for c in group]):.1f}"
    for share in TIMES:
        at = [np.interp(share * seconds, c["seconds"], c["nll"]) for c in group]
        yield _mean(at, 0)
    ends, tests = ([cell["nll"][-1] for cell in group], [cell["test_nll"] for cell in group])
    yield _mean(ends)
    yield _mean(tests)
    yield f"{np.ptp(tests) / 2:.1f}" if len(tests) > 1 else ""
    pairs = [(cell, ml) for cell in group for ml in reference if cell["seed"] == ml["seed"]]
    yield f"{np.mean([_not_above(*pair) for pair in pairs]):.0%}" if pairs else ""
    yield _when([_reaches(*pair) for pair in pairs]) if pairs else ""


def _not_above(cell: Cell, reference: Cell) -> float:
    """Returns the share of the reference's validations at which the cell's NLL is not above."""
    at = np.interp(reference["seconds"], cell["seconds"], cell["nll"])
    return float(np.mean(at <= np.asarray(reference["nll"])))


def _reaches(cell: Cell, reference: Cell) -> float:
    """Returns the seconds after which the cell first has the reference's last NLL, or NaN."""
    there = np.flatnonzero(np.asarray(cell["nll"]) <= reference["nll"][-1])
    return cell["seconds"][there[0]] if len(there) else np.nan


def _when(seconds: Sequence[float]) -> str:
    return "never" if np.isnan(seconds).any() else f"{np.mean(seconds):.0f}"


def _mean(values: Sequence[float], digits: int = 1) -> str:
    return FAILED if np.isnan(values).any() else f"{np.mean(values):.{digits}f}"


def draw(cells: Sequence[Cell], gaussian: float, study: str = "objectives") -> Figure:
    """Returns the figure of a study, its panels beside each other."""
    groups = _groups(cells)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        for axis, (title, labels) in zip(
            figure.subplots(1, 3, sharey=True), PANELS[study].items(), strict=True
        ):
            axis.axhline(gaussian, color=BASELINE, ls="--", lw=1, label="Gaussian")
            _panel(axis, {name: groups[name] for name in (REFERENCE, *labels) if name in groups})
            axis.set_title(title)
        figure.axes[0].set_ylim(*_limits(cells, gaussian))
        figure.axes[0].set_ylabel("validation NLL (nats)")
        return figure


def _limits(cells: Sequence[Cell], gaussian: float) -> tuple[float, float]:
    """Returns limits that show every end below the best start, and the Gaussian."""
    ends = [cell["nll"][-1] for cell in cells if np.isfinite(cell["nll"][-1])]
    low, high = min([gaussian, *ends]), max(gaussian, min(cell["nll"][0] for cell in cells))
    return low - 0.08 * (high - low), high + 0.6 * (high - low)


def _panel(axis: Axes, groups: Mapping[str, Sequence[Cell]]) -> None:
    colours: dict[str, Any] = {REFERENCE: "black"}
    for label, group in groups.items():
        base = label.removesuffix(ANCHORED)
        colour = colours.setdefault(base, matplotlib.colormaps["tab10"](len(colours) - 1))
        plain = base == label and base + ANCHORED in groups
        for index, cell in enumerate(group):
            name = label if index == 0 else None
            style = {"color": colour, "ls": ":" if plain else "-", "lw": 1.2}
            axis.plot(cell["seconds"], cell["nll"], label=name, **style)
    axis.set_xscale("log")
    last = max((cell["seconds"][-1] for group in groups.values() for cell in group), default=1)
    axis.set_xlim(TICKS[0], max(last, 2 * TICKS[0]))
    axis.set_xticks([tick for tick in TICKS if tick <= last], minor=False)
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.minorticks_off()
    axis.set_xlabel("training time (s)")
    axis.legend(fontsize=7, loc="lower left")
