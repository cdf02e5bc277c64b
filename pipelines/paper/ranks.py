"""Mean ranks of rivals over tables, the common result of experiments on many tables."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pipelines.paper.cell import Finished, Row
from pipelines.paper.scores import LEVEL
from pipelines.reporting.style import DATA, Captioned, panels

OURS = "ebflow"

COVERAGE = "study/coverage"
"""The metric that is ranked by its distance to the nominal coverage."""

MARKERS = "oxs^v+Dd"


def rows(finished: Sequence[Finished], ranked: Mapping[str, str]) -> list[Row]:
    """Returns one row per rival and table: means over seeds, and ranks among the rivals.

    The rows of a rival are one line of the table: the mean over tables with its interval. A rival
    that diverged has the last rank.

    Arguments:
        finished: Cells with the labels ``table`` and ``rival``, and others, by which ranks are
            separate.
        ranked: The ranked metrics by the names of their ranks; smaller values are better.
    """
    labels = [*finished[0].cell.labels]
    metrics = [{k: v for k, v in one.row.items() if "/" in k} for one in finished]
    cells = [{**one.cell.labels, **found} for one, found in zip(finished, metrics, strict=True)]
    means = pd.DataFrame(cells).groupby(labels, sort=False).mean()
    values = means.assign(**{COVERAGE: (means[COVERAGE] - LEVEL).abs()})[[*ranked.values()]]
    complete = pd.MultiIndex.from_product(values.index.unique(name) for name in labels)
    values = values.reindex(complete)
    others = [name for name in labels if name != "rival"]
    ranks = values.groupby(level=others).rank(na_option="bottom").set_axis([*ranked], axis=1)
    found = ranks.join(means)
    return [
        _row(dict(zip(labels, key, strict=True)), metrics.dropna().to_dict())
        for key, metrics in found.iterrows()
    ]


def _row(labels: dict[str, str], metrics: Row) -> Row:
    table = labels.pop("table")
    return {"labels": labels, "seed": 0, "published": None, "data": table, **metrics}


def by_table(rows: Sequence[Row], metric: str, name: str) -> Captioned:
    """Returns a figure of a metric of every rival less that of ebflow, table by table."""
    cells = [{**row["labels"], "table": row["data"], name: row.get(metric)} for row in rows]
    values = pd.DataFrame(cells).set_index([*cells[0]][:-1])[name].unstack("rival", sort=False)
    away = values.drop(columns=OURS).sub(values[OURS], axis=0)
    conditions = [level for level in away.index.names if level != "table"]
    parts = dict([*away.groupby(conditions, sort=False)] if conditions else [(("",), away)])
    figure, axes = panels(len(parts), 1 + 3.5 * len(parts), 4.6, sharey=True, squeeze=False)
    for axis, (names, part) in zip(axes[0], parts.items(), strict=True):
        for (rival, leads), marker in zip(part.items(), MARKERS, strict=False):
            axis.plot(leads, part.index.get_level_values("table"), marker, ms=4, label=rival)
        axis.axvline(0, color=DATA, lw=1)
        axis.set_xscale("symlog", linthresh=0.1)
        axis.set(title=" ".join(names), xlabel=f"{name}, less {OURS}'s")
    axes[0, 0].legend(fontsize=7)
    return figure, f"Mean {name} over seeds. To the right of 0 ebflow is better."
