"""Step times of every objective on this machine, as tables."""

__all__ = ["bench"]

import platform
import resource
import sys
from collections.abc import Iterator, Sequence

import torch
from rich.console import Console
from rich.table import Table

from ebflow.errors import BadInput
from pipelines.benchmark.cases import Case, convolutional_cases, dense_cases
from pipelines.benchmark.costs import measured_peak
from pipelines.benchmark.scaling import crossover, exponent
from pipelines.benchmark.timing import Timing, benchmark
from pipelines.cli.options import Bench
from pipelines.cluster import environment

UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of ``ru_maxrss``."""


def bench(options: Bench, console: Console) -> None:
    """Prints the timings as they come."""
    subjects = [(title, _chosen(cases, options)) for title, cases in _subjects(options)]
    torch.set_num_threads(options.threads)
    peak = measured_peak()
    console.print(
        f"{platform.processor() or platform.machine()}, {options.threads} threads, torch "
        f"{torch.__version__}, B = {options.batch}, huge pages "
        f"{'on' if environment.IN_FORCE else 'off'}; peak {peak / 1e9:.0f} GFLOP/s",
        highlight=False,
    )
    timings = []
    for title, cases in subjects:
        before = _most_memory()
        found = benchmark(cases, peak=peak, batch=options.batch, seconds=options.seconds)
        timings += found
        console.print(_table(title, found))
        console.print(_memory(before, _most_memory()), highlight=False)
    if options.architecture == "dense":
        for line in _growth(timings):
            console.print(line, highlight=False)


def _subjects(options: Bench) -> Iterator[tuple[str, list[Case]]]:
    if options.architecture == "dense":
        for size in options.sizes:
            title = f"dense, D = {size}, L = {options.depth}"
            yield (
                title,
                dense_cases(
                    size, depth=options.depth, batch=options.batch, activations=options.activations
                ),
            )
    else:
        for channels, height, width, side in options.images:
            title = f"convolutional, {channels}×{height}×{width}, k = {side}, 6 layers"
            shape = (channels, height, width)
            yield title, convolutional_cases(shape, side, batch=options.batch)


def _chosen(cases: list[Case], options: Bench) -> list[Case]:
    """Returns the cases of the objectives that are asked for."""
    names = {case.objective: None for case in cases}
    for name in options.objectives:
        if name not in names:
            raise BadInput(f"--objectives: found {name}, expected some of {', '.join(names)}")
    return [case for case in cases if case.objective in (options.objectives or names)]


def _most_memory() -> int:
    """Returns the most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def _memory(before: int, after: int) -> str:
    bound = "" if after > before else "at most "
    return f"memory of these cases at their peak: {bound}{after / 2**30:.1f} GiB"


def _growth(timings: Sequence[Timing]) -> Iterator[str]:
    for label in dict.fromkeys(row.label for row in timings):
        power, size = exponent(timings, label), crossover(timings, label)
        if power is not None:
            reach = f"(95 %: {power.low:.2f} … {power.high:.2f})"
            yield f"step time of {label} grows as D^{power.value:.2f} {reach}"
        if size is not None:
            yield f"a step of {label} is as fast as one of exact ML from D = {size:.0f} on"


def _table(title: str, timings: Sequence[Timing]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("objective")
    for name in ("ms/step", "median", "GEMMs", "of peak", "× exact ML"):
        table.add_column(name, justify="right")
    for row in timings:
        times = (f"{row.ms:.2f}", f"{row.median_ms:.2f}")
        counts = (_told(row.gemms, "d"), _told(row.peak_fraction, ".0%"))
        table.add_row(row.label, *times, *counts, _told(row.ml_ratio, ".2f"))
    return table


def _told(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)
