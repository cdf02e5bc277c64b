"""The map of where training by scores alone loses mass, as an experiment."""

from collections.abc import Sequence

import pandas as pd

from pipelines.paper.experiments.cell import IMAGE_OPTIONS, Cell, Column, Experiment, Folders, Row
from pipelines.paper.experiments.phases.figures import figures
from pipelines.paper.experiments.phases.grid import ACTIVATIONS, PAIRS, SEEDS, cells
from pipelines.paper.experiments.phases.nets import pair, read
from pipelines.paper.experiments.phases.verdicts import conclude


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a cell and preprocessing: what its starts and rates have in common.

    Of a pair, what the better start and rate, of all seeds, have.
    """
    nets = read(folders)
    best = pd.concat([pair(nets, name) for name in ACTIVATIONS]).index
    kept = nets[(nets["part"] != PAIRS) | nets.index.isin(best)]
    return [
        _row(cells[place], preprocessing, group)
        for (place, preprocessing), group in kept.groupby(["place", "preprocessing"], sort=False)
    ]


def _row(cell: Cell, preprocessing: str, nets: pd.DataFrame) -> Row:
    config = cell.config
    labels = {"part": config.part, "D": str(nets["width"].iloc[0]), "data": preprocessing,
              "f": config.activation, "objective": config.trained_by}  # fmt: skip
    return {
        **cell.provenance(),
        "labels": labels,
        "method": f"{len(nets)} nets of two dense layers, {config.steps} steps of Adam under a "
        "cosine, batches of 100",
        "study/nets": len(nets),
        "study/lost": 100 * float(nets["lost"].mean()),
        "study/late": 100 * float(nets["late"].mean()),
        "study/over_gaussian": float((nets["best"] - nets["gaussian"]).min()),
    }


PHASES = Experiment(
    about="where training by scores alone loses mass, and what keeps it",
    legend="lost: share of nets, over starts and rates, whose squared latent mean ends large and "
    "has risen; late: large, still falling; over Gauss: validation NLL of the best net at its "
    "best look above the full-covariance Gaussian's, nats; pairs: the best of four rates",
    source="mnist",
    uses=IMAGE_OPTIONS - {"seconds", "cluster"},
    seeds=SEEDS,
    cells=cells,
    columns=(
        Column("study/nets", "nets", 0, interval=False),
        Column("study/lost", "lost %", 0, interval=False),
        Column("study/late", "late %", 0, interval=False),
        Column("study/over_gaussian", "over Gauss", 1),
    ),
    rows=rows,
    figures=lambda rows, folders: figures(read(folders)),
    conclude=lambda folders: conclude(read(folders)),
)
