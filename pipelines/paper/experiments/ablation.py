"""The ablation: the average of the weights (EMA), and matching after preprocessing (MaP)."""

from itertools import product

from pipelines.config import DensityConfig
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import Cell, Column, Experiment
from pipelines.paper.experiments.settings import (
    EPOCH,
    IMAGE_OPTIONS,
    NETS,
    OBJECTIVES,
    base,
    published,
    schedules,
)

MATCHING = ("SSM", "DSM", "FD-SSM")
PUBLISHED = {
    ("off", "off"): {"FC": (1757.5, 4660.3, 3267.0), "CNN": (3518.0, 3170.0, 3593.3)},
    ("on", "off"): {"FC": (1720.5, 4455.0, 3166.3), "CNN": (3504.5, 3180.0, 3560.3)},
    ("on", "on"): {"FC": (1092.8, 1099.2, 1104.1), "CNN": (1107.5, 1109.5, 1122.1)},
}
"""Published NLL by EMA, MaP and net, objective by objective; EMA off with MaP on is not there."""

EPOCHS = 1_000
STEPS = EPOCH["grey"] * EPOCHS


def cells(config: PaperConfig) -> list[Cell]:
    """Returns the published settings with and without EMA and MaP, at each schedule."""
    switches = (("off", "on"), ("off", "on"))
    ways = product(config.trials, NETS, MATCHING, *switches, schedules(config))
    return [_cell(config, *way) for way in ways]


def _cell(
    config: PaperConfig, seed: int, net: str, name: str, ema: str, match: str, schedule: str
) -> Cell:
    objective = OBJECTIVES[name]
    common = base(config, seed, "mnist", cpu=15, full=STEPS)
    flow = published(common, net, objective, epoch=schedules(config)[schedule])
    flow = _matched_raw(flow) if match == "off" else flow
    flow = flow if ema == "on" else flow.changed(train={"ema_decay": 0.0})
    labels = {"net": net, "objective": objective, "EMA": ema, "MaP": match, "rate": schedule}
    numbers = PUBLISHED.get((ema, match), {}).get(net)
    found = {"test/nll": numbers[MATCHING.index(name)]} if numbers else {}
    return Cell.of_flow(labels, flow, published=found)


def _matched_raw(config: DensityConfig) -> DensityConfig:
    """Returns the same with scores and noise in grey levels, where noised pixels leave the range.

    There the logit goes on linearly; the paper's code has NaN.
    """
    return config.changed(preprocess={"match_after": False, "extended": True})


ABLATION = Experiment(
    about="test NLL (nats) with and without EMA and matching after preprocessing (MaP)",
    legend="published settings; MaP off: scores matched in grey levels, where the logit goes on "
    "linearly outside the range; rate: falling every 500 steps as in the paper, or with all falls "
    "squeezed into the training's length",
    note="MNIST, at the paper's length of training",
    source="mnist",
    uses=IMAGE_OPTIONS,
    cells=cells,
    columns=(
        Column("train/steps", "steps", 0, interval=False),
        Column("test/nll", "NLL", 1, "nll"),
    ),
)
