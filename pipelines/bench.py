"""Step times of every objective on this machine, as tables."""

__all__ = ["bench"]

import platform
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from ebflow.benchmark import Timing, benchmark, growth
from ebflow.costs import measured_peak
from pipelines import environment
from pipelines.options import Bench


def bench(options: Bench, console: Console) -> None:
    """Prints the timings as they come."""
    torch.set_num_threads(options.threads)
    peak = measured_peak()
    console.print(
        f"{platform.processor() or platform.machine()}, {options.threads} threads, torch "
        f"{torch.__version__}, L = {options.depth}, B = {options.batch}, huge pages "
        f"{'on' if environment.IN_FORCE else 'off'}; peak {peak / 1e9:.0f} GFLOP/s",
        highlight=False,
    )
    timings = []
    for size in options.sizes:
        found = benchmark(
            size, peak=peak, depth=options.depth, batch=options.batch, seconds=options.seconds
        )
        timings += found
        console.print(_table(size, found))
    for name, exponent in growth(timings).items():
        console.print(f"step time of {name} grows as D^{exponent:.2f}", highlight=False)


def _table(size: int, timings: Sequence[Timing]) -> Table:
    table = Table(title=f"D = {size}", title_justify="left")
    table.add_column("objective")
    for name in ("ms/step", "median", "GEMMs", "of peak", "× exact ML"):
        table.add_column(name, justify="right")
    for row in timings:
        numbers = (f"{row.ms:.2f}", f"{row.median_ms:.2f}", str(row.gemms))
        shares = (f"{row.peak_fraction:.0%}", f"{row.ml_ratio:.2f}")
        table.add_row(row.objective, *numbers, *shares)
    return table
