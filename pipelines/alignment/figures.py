"""Figures of the study."""

__all__ = ["figures"]

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from pipelines.alignment.table import Line
from pipelines.report import BASELINE, DATA, FLOW

Lines = Mapping[str, Line]
Captioned = tuple[Figure, str]


def figures(lines: Lines, quality: Mapping[str, float]) -> dict[str, Captioned]:
    """Returns figures with captions, by name."""
    return {"alignment": _alignment(lines)}


def _alignment(lines: Lines) -> Captioned:
    figure = Figure(figsize=(8, 0.5 + 0.35 * len(lines)), layout="constrained")
    axis = figure.subplots()
    at = np.arange(len(lines))[::-1]
    for metric, colour, mark in (("A1", FLOW, "o"), ("A2", DATA, "s"), ("A3", BASELINE, "D")):
        found = [line.interval(metric) for line in lines.values()]
        values = np.array([f.value for f in found])
        half = np.nan_to_num([f.high - f.value for f in found])
        axis.errorbar(values, at, xerr=half, fmt=mark, color=colour, label=metric, ms=5)
    axis.set_yticks(at, list(lines))
    axis.axvline(0, color="black", lw=0.5)
    axis.set_xlabel("mean cosine")
    axis.legend(loc="lower right")
    return (
        figure,
        "Alignment with the scores of the reference; bars are 95 % intervals over seeds.",
    )
