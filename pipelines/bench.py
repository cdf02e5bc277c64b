"""Step times of every objective on this machine, as tables."""

__all__ = ["bench"]

import platform
import resource
import sys
from collections.abc import Iterator, Sequence

import torch
from rich.console import Console
from rich.table import Table

from ebflow.benchmark import (
    Case,
    Timing,
    benchmark,
    convolutional_cases,
    dense_cases,
    growth,
)
from ebflow.costs import measured_peak
from pipelines import environment
from pipelines.options import Bench

UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of ``ru_maxrss``."""


def bench(options: Bench, console: Console) -> None:
    """Prints the timings as they come."""
    torch.set_num_threads(options.threads)
    peak = measured_peak()
    console.print(
        f"{platform.processor() or platform.machine()}, {options.threads} threads, torch "
        f"{torch.__version__}, B = {options.batch}, huge pages "
        f"{'on' if environment.IN_FORCE else 'off'}; peak {peak / 1e9:.0f} GFLOP/s",
        highlight=False,
    )
    timings = []
    for title, cases in _subjects(options):
        found = benchmark(cases, peak=peak, batch=options.batch, seconds=options.seconds)
        timings += found
        console.print(_table(title, found))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
        console.print(f"most memory so far: {memory / 2**30:.1f} GiB", highlight=False)
    if options.architecture == "dense":
        for name, exponent in growth(timings).items():
            console.print(f"step time of {name} grows as D^{exponent:.2f}", highlight=False)


def _subjects(options: Bench) -> Iterator[tuple[str, list[Case]]]:
    if options.architecture == "dense":
        for size in options.sizes:
            title = f"dense, D = {size}, L = {options.depth}"
            yield title, dense_cases(size, depth=options.depth, batch=options.batch)
    else:
        for channels, height, width, side in options.images:
            title = f"convolutional, {channels}×{height}×{width}, k = {side}, 6 layers"
            yield title, convolutional_cases((channels, height, width), side)


def _table(title: str, timings: Sequence[Timing]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("objective")
    for name in ("ms/step", "median", "GEMMs", "of peak", "× exact ML"):
        table.add_column(name, justify="right")
    for row in timings:
        share = "" if row.peak_fraction is None else f"{row.peak_fraction:.0%}"
        counts = ("" if row.gemms is None else str(row.gemms), share)
        times = (f"{row.ms:.2f}", f"{row.median_ms:.2f}")
        table.add_row(row.label, *times, *counts, f"{row.ml_ratio:.2f}")
    return table
