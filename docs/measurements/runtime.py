"""The time of a training step against D, with the share of the machine's rate: prints tables.

    python docs/measurements/runtime.py [--smoke] [--dense --batch 512]

prints the tables of ``steps.md``. Nothing else should run on the machine. ``ebflow run paper
--experiment runtime`` measures the same steps as a cached stage, and judges how they grow with D.

A step grows about as D² if matrix products of a batch dominate, and as D³ if factorizations do. So
one objective overtakes the other at a *crossover*, here the least measured D from which on it is
faster.
"""

import argparse
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import pandas as pd
import torch

from ebflow.objectives import OBJECTIVES
from pipelines.config.model import Model
from pipelines.paper.timing import ANCHORED, NETWORKS, benchmark, build, measured_peak

Times = Mapping[int, float]  # Step times in milliseconds by D

FC, CNN = NETWORKS.values()

DENSE = tuple(OBJECTIVES) + tuple(f"{name}{ANCHORED}" for name in ("dsm", "ssm"))

# Without relative_ml, which equals ml there.
CONVOLUTIONAL = tuple(name for name in OBJECTIVES if name != "relative_ml")

SPLINE = FC.changed(activation="spline")

# Network, sides of the images and objectives, by names of network and images.
KINDS: dict[tuple[str, str], tuple[Model, tuple[int, ...], tuple[str, ...]]] = {
    ("FC", "grey"): (FC, (8, 16, 28, 40, 56), DENSE),
    ("CNN", "grey"): (CNN, (16, 28, 40), CONVOLUTIONAL),
    ("CNN", "colour"): (CNN, (16, 24, 32), CONVOLUTIONAL),
    ("FC spline", "grey"): (SPLINE, (28,), ("ml", "lazy_ml", "dsm", f"dsm{ANCHORED}")),
}

CHANNELS = {"grey": 1, "colour": 3}
SMOKE = (8, 12, 16)  # Sides of a short run


def table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Returns milliseconds by objective and D, and the crossover."""
    shown = by_size(rows, "ms")
    times = {label: dict(line) for label, line in shown.iterrows()}
    faster = [crossover(own, times["ml"]) for own in times.values()]
    return shown.assign(**{"faster from D": faster})


def by_size(rows: Sequence[Mapping[str, Any]], column: str) -> pd.DataFrame:
    """Returns a column of timings by objective and D."""
    values = pd.DataFrame(rows).set_index(["label", "size"])[column].astype(float).unstack()
    return values.reindex([*dict.fromkeys(row["label"] for row in rows)])


def main(
    sides: Sequence[int], seconds: float, threads: int, batch: int = 100, kinds: int = len(KINDS)
) -> None:
    """Prints a table for each network and kind of images, the first ``kinds`` of them.

    ``sides`` replace those of the page.
    """
    torch.set_num_threads(threads)
    peak = measured_peak()
    for (network, images), (model, own, objectives) in [*KINDS.items()][:kinds]:
        rows: list[dict[str, Any]] = []
        for side in sides[-len(own) :] or own:
            flow = build(model, CHANNELS[images], side)
            rows += benchmark(flow, objectives, peak=peak, batch=batch, seconds=seconds)
        tables = {"ms": table(rows)}
        tables["% of the peak"] = 100 * by_size(rows, "peak_fraction")
        tables[f"% of products of {batch} rows"] = 100 * by_size(rows, "batch_fraction")
        for title, values in tables.items():
            print(f"\n{network}, {images}: {title}\n{values.round(1).to_string(na_rep='')}")


def crossover(times: Times, reference: Times) -> int | None:
    """Returns the least measured D from which on a step is faster than another; None without."""
    sizes = sorted(times.keys() & reference.keys(), reverse=True)
    faster = [*takewhile(lambda size: times[size] < reference[size], sizes)]
    return faster[-1] if faster else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="small images, for a moment")
    parser.add_argument("--batch", type=int, default=100, help="rows of a step")
    parser.add_argument("--dense", action="store_true", help="dense networks alone")
    options = parser.parse_args()
    kinds = 1 if options.dense else len(KINDS)
    main(*(SMOKE, 0.01, 1) if options.smoke else ((), 1.0, 2), options.batch, kinds)
