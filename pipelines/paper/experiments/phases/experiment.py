"""The map of where training by scores alone loses mass, as an experiment."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from pipelines.paper.experiments.cell import Cell, Column, Experiment, Folders, Row
from pipelines.paper.experiments.phases.figures import CAPTIONS, figures
from pipelines.paper.experiments.phases.grid import ALONE, PAIRS, cells
from pipelines.paper.experiments.phases.trained import Trained, read, share
from pipelines.paper.experiments.phases.verdicts import conclude, pair
from pipelines.paper.experiments.settings import IMAGE_OPTIONS


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a cell and preprocessing: what its starts and rates have in common.

    Of a pair, what the better start and rate, of all seeds, have.
    """
    found = [read([folder]) for folder in folders]
    best = {pair(list(chain(*found)), name)[0].cell for name in ("published", *ALONE)}
    return [
        row
        for cell, nets in zip(cells, found, strict=True)
        for row in _rows(cell, [net for net in nets if net.part != PAIRS or net.cell in best])
    ]


def _rows(cell: Cell, nets: Sequence[Trained]) -> Iterator[Row]:
    config = cell.config
    groups: dict[str, list[Trained]] = {}
    for net in nets:
        groups.setdefault(net.preprocessing, []).append(net)
    for preprocessing, group in groups.items():
        yield {
            **cell.provenance(),
            "labels": {"part": config.part, "D": str(group[0].width), "data": preprocessing,
                       "f": config.activation, "objective": cell.labels["objective"]},
            "method": f"{len(group)} nets of two dense layers, {config.steps} steps of Adam "
            "under a cosine, batches of 100",
            "study/nets": len(group),
            "study/lost": 100 * share(group),
            "study/late": 100 * float(np.mean([net.late for net in group])),
            "study/over_gaussian": min(net.best - net.gaussian for net in group),
        }  # fmt: skip


PHASES = Experiment(
    about="where training by scores alone loses mass, and what keeps it",
    legend="lost: share of nets, over starts and rates, whose squared latent mean ends large and "
    "has risen; late: large, still falling; over Gauss: validation NLL of the best net at its "
    "best look above the full-covariance Gaussian's, nats; pairs: the best of four rates",
    note="",
    source="mnist",
    uses=IMAGE_OPTIONS - {"seconds", "cluster"},
    cells=cells,
    columns=(
        Column("study/nets", "nets", 0, interval=False),
        Column("study/lost", "lost %", 0, interval=False),
        Column("study/late", "late %", 0, interval=False),
        Column("study/over_gaussian", "over Gauss", 1),
    ),
    rows=rows,
    figures=lambda rows, folders: figures(read(folders)),
    captions=CAPTIONS,
    conclude=lambda folders: conclude(read(folders)),
)
