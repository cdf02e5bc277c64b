"""A search of score matching's settings: chosen by validation rows, compared on test rows.

Each seed chooses for itself, among the settings that cost no more than ``ACCURACY`` on its
validation rows, the one with the highest alignment there. So the test rows decide nothing, and
seeds are compared in pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipelines.gradient_alignment.models import BASELINE
from pipelines.gradient_alignment.sweep import AXES, Cell
from pipelines.reporting.result import Table, plus_minus
from pipelines.reporting.style import BASELINE as ORANGE
from pipelines.reporting.style import DATA, FLOW, Captioned, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipelines.gradient_alignment.questions import Study
    from pipelines.reporting.statistics import Interval

ACCURACY = 0.02  # The largest loss of validation accuracy of a chosen setting

PAPER, RECOMMENDED = "paper-score", "score"


def candidates(study: Study) -> list[str]:
    """Returns the models among which the search chooses: its cells and the recommended one.

    Raises:
        KeyError: If there was no search, or the recommended model was not measured.
    """
    searched = [name for name, model in study.models.items() if model.cell is not None]
    if not searched or RECOMMENDED not in study.models:
        raise KeyError("search")
    return [RECOMMENDED, *searched]


def target(study: Study) -> str:
    """Returns the alignment that a search raises: that which no gauge moves, if it is known."""
    return "A3" if "A3" in study.numbers else "DSM-cos"


def chosen(study: Study) -> list[str]:
    """Returns the model that each seed chooses by its validation rows.

    If all cost more than ``ACCURACY``, it is the most accurate one. Models that diverged are not
    chosen.

    Raises:
        KeyError: If there was no search.
    """
    names = candidates(study)
    accuracies = _by_seed(study, "validation/accuracy", names)
    alignments = _by_seed(study, f"validation/{target(study)}", names)
    least = study.values("validation/accuracy", BASELINE)[:, None] - ACCURACY
    allowed = alignments.where(accuracies >= least)
    best = allowed.where(allowed.notna().any(axis=1), accuracies, axis=0)
    return best.fillna(-np.inf).idxmax(axis=1).tolist()


def of_chosen(study: Study, metric: str) -> np.ndarray:
    """Returns a metric of each seed's chosen model; raises KeyError if there was no search."""
    return np.array([study.values(metric, name)[k] for k, name in enumerate(chosen(study))])


def over_paper(study: Study) -> np.ndarray:
    """Returns the alignment of the chosen setting less that of the paper's, on test rows."""
    return of_chosen(study, target(study)) - study.values(target(study), PAPER)


def accuracy_over_paper(study: Study) -> np.ndarray:
    """Returns the accuracy of the chosen setting less that of the paper's, on test rows."""
    return of_chosen(study, "accuracy") - study.values("accuracy", PAPER)


def _by_seed(study: Study, metric: str, names: Sequence[str]) -> pd.DataFrame:
    """Returns a metric with a row for each seed and a column for each model."""
    return pd.DataFrame({name: study.values(metric, name) for name in names})


def setting(study: Study, name: str) -> Cell:
    """Returns the setting of a model of score matching."""
    training = study.models[name].classifier
    penalty = training.regularizer
    return Cell(penalty.weight, penalty.stability, penalty.step, training.noise)


def table(study: Study) -> Table:
    """Returns the table of all settings, with the numbers by which they are chosen and judged."""
    metrics = ["validation/accuracy", f"validation/{target(study)}", "accuracy", target(study)]
    counts = Counter(chosen(study))
    lines = []
    for name in [name for name in (PAPER, *candidates(study)) if name in study.models]:
        values = (f"{value:g}" for value in setting(study, name))
        means = (plus_minus(study.interval(metric, name), 3) for metric in metrics)
        lines.append((name, *values, *means, str(counts[name])))
    return Table(
        "Search of score matching's settings",
        ("model", *AXES.values(), *metrics, "chosen by seeds"),
        lines,
        f"Each seed chooses the highest validation/{target(study)} among settings that cost at "
        f"most {ACCURACY:g} of the baseline's validation accuracy. The other columns are of test "
        "rows. Means over seeds ± 95 % intervals.",
    )


def figure(study: Study) -> Captioned:
    """Draws accuracy against alignment of all settings, and alignment by each that varies."""
    lines = {field: _line(study, field) for field in AXES}
    varied = {field: line for field, line in lines.items() if len(line) > 1}
    drawn, axes = panels(1 + len(varied), 3.2 * (1 + len(varied)), 3.2, squeeze=False)
    _plane(study, axes[0, 0])
    for axis, (field, line) in zip(axes[0, 1:], varied.items(), strict=True):
        _draw(axis, line, getattr(setting(study, RECOMMENDED), field))
        axis.set(xlabel=AXES[field], ylabel=target(study))
    return drawn, (
        "Search of score matching's settings, on test rows. Left: accuracy against alignment; the "
        "setting that most seeds choose by validation rows has a ring. Right: alignment if one "
        "setting changes and the others are the recommended ones. Bars are 95 % intervals over "
        "seeds."
    )


def _plane(study: Study, axis: Axes) -> None:
    marked = {BASELINE: DATA, PAPER: ORANGE, RECOMMENDED: FLOW}
    for name in candidates(study):
        if name not in marked:
            axis.plot(*_means(study, name), ".", color="#6fa3d8")
    for name, colour in marked.items():
        if name in study.models:
            axis.plot(*_means(study, name), "o", color=colour, label=name)
    (favourite, _), *_ = Counter(chosen(study)).most_common()
    ring = {"markersize": 14, "markerfacecolor": "none", "color": "black"}
    axis.plot(*_means(study, favourite), "o", **ring, label="chosen")
    axis.set(xlabel=target(study), ylabel="accuracy")
    axis.legend(fontsize=7, loc="best")


def _means(study: Study, name: str) -> tuple[float, float]:
    return study.interval(target(study), name).value, study.interval("accuracy", name).value


def _line(study: Study, field: str) -> dict[float, Interval]:
    """Returns the alignment by a field, of settings that differ from the recommended in no other.

    The values are in their order.
    """
    centre = setting(study, RECOMMENDED)
    points = {}
    for name in candidates(study):
        own = setting(study, name)
        if own._replace(**{field: getattr(centre, field)}) == centre:
            points[getattr(own, field)] = study.interval(target(study), name)
    return dict(sorted(points.items()))


def _draw(axis: Axes, line: Mapping[float, Interval], centre: float) -> None:
    """Draws a line with its intervals; a dotted one is at the recommended value."""
    means = [mean.value for mean in line.values()]
    bars = [float(np.nan_to_num(mean.high - mean.value)) for mean in line.values()]
    axis.errorbar([*line], means, yerr=bars, marker="o", color=FLOW)
    axis.set_xscale("symlog", linthresh=min(value for value in line if value))
    axis.set_xticks([*line], [f"{value:g}" for value in line])
    axis.set_xticks([], minor=True)
    axis.axvline(centre, ls=":", color="black", lw=0.8)
