"""Anomalies in labelled tables: ebflow's detector and those that people use, table by table."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ebflow.errors import BadInput
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import DetectConfig, PaperConfig
from pipelines.paper.labelled import files
from pipelines.reporting.statistics import student
from pipelines.reporting.style import BASELINE, DATA, FLOW, LIGHT, Captioned, panels

OWN = "ebflow"
MEASURES = ("normal/auroc", "contaminated/auroc", "normal/seconds", "contaminated/seconds")


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per table, with all detectors."""
    tables = [*files(config.sources)]
    if not tables or len({path.stem for path in tables}) < len(tables):
        expected = "labelled tables with different names: files or folders"
        raise BadInput(option="--sources", found=f"{len(tables)} tables", expected=expected)
    for path in tables:
        options = DetectConfig(source=str(path), seed=seed, seconds=config.seconds or 0.0)
        yield Cell({"table": path.stem}, options, seed)


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per detector, with means over tables of the means over seeds."""
    frame = pd.DataFrame([
        {"table": one.cell.labels["table"], "measure": measure, "detector": name, "value": value}
        for one in finished for key, value in one.row.items()
        for measure, _, name in [key.rpartition("/")] if measure in MEASURES
    ])  # fmt: skip
    tables = frame.pivot_table(index="table", columns=["measure", "detector"], values="value")
    names = tables["normal/auroc"].mean().sort_values(ascending=False).index
    return [_row(name, tables) for name in names]


def _row(name: str, tables: pd.DataFrame) -> Row:
    """Returns the row of a detector; its leads are those of ebflow over it."""
    row = {"labels": {"detector": name}, "seed": 0, "published": None,
           "data": f"{len(tables)} tables"}  # fmt: skip
    for protocol in ("normal", "contaminated"):
        auroc = tables[f"{protocol}/auroc"]
        ranks = auroc.rank(axis=1, ascending=False).mean()
        row |= {f"{protocol}/rank": ranks[name], f"{protocol}/tables": auroc[name].to_dict()}
        row |= _interval(f"{protocol}/auroc", auroc[name])
        if name != OWN:
            row |= _interval(f"{protocol}/lead", auroc[OWN] - auroc[name])
    return row | {"seconds": tables["normal/seconds"][name].mean()}


def _interval(key: str, values: pd.Series) -> Row:
    """Returns a mean over tables in %, and the standard error that gives its t interval."""
    mean, _, high = student(100 * values.to_numpy()).interval()
    return {key: mean, f"{key}_se": (high - mean) / 1.96}


def figure(rows: Sequence[Row]) -> Captioned:
    """Returns the AUROC of every table, of ebflow and of the other detectors."""
    shown, axes = panels(1, 9, 4.5)
    values = pd.DataFrame({one["labels"]["detector"]: one["normal/tables"] for one in rows})
    values = values.sort_values(OWN)
    colours = {OWN: FLOW, "kNN": BASELINE, "GMM": DATA}
    for name in reversed(values.columns):
        style = {"s": 26 if name in colours else 12, "color": colours.get(name, LIGHT)}
        label = name if name in colours else None
        axes.scatter(np.arange(len(values)), values[name], label=label, **style)
    axes.set_xticks(np.arange(len(values)), values.index, rotation=90, fontsize=6)
    axes.set_ylabel("AUROC")
    axes.legend()
    return shown, "AUROC per table after training on normal rows; other detectors are grey."


DETECTION = Experiment(
    about="anomalies in labelled tables: AUROC in %, mean over tables",
    legend="normal: trained on half of the normal rows, tested on all others; contaminated: "
    "trained on all rows without labels, ebflow with few references; rank: mean over "
    "tables; lead: ebflow's; ±: 95 %, over tables; s: CPU seconds of a table",
    uses=frozenset(("sources", "seconds", "seed", "seeds")),
    cells=cells,
    columns=(
        Column("normal/auroc", "normal"),
        Column("normal/rank", "rank", interval=False),
        Column("normal/lead", "lead"),
        Column("contaminated/auroc", "contaminated"),
        Column("contaminated/rank", "rank", interval=False),
        Column("contaminated/lead", "lead"),
        Column("seconds", "s", interval=False),
    ),
    seeds={"cpu": 3, "full": 5},
    rows=rows,
    figures=lambda rows, finished: {"detection": figure(rows)},
)
