"""Measures how far ``ebflow.fit`` overruns its time limit beside busy processes.

Each fit runs in a process of its own, with the default number of threads. The tables are
correlated Gaussians with bent columns, by seed 0::

    python docs/measurements/limits.py --seconds 10 --busy 2
"""

import argparse
import multiprocessing
import os
import time

import numpy as np

TABLES = ((1_000, 8), (5_500, 20), (5_500, 100), (3_000, 400))  # Rows and columns


def bent(rows: int, columns: int) -> np.ndarray:
    """Returns correlated rows, with every second column bent."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)) / columns**0.5
    x[:, ::2] = np.sinh(x[:, ::2])
    return x


def work() -> None:
    """Multiplies matrices with the default number of threads, until it is killed."""
    x = np.ones((1_000, 1_000))
    while True:
        x @ x


def measure(rows: int, columns: int, seconds: float) -> None:
    """Fits a table and prints the seconds that it took."""
    import ebflow

    x = bent(rows, columns)
    started = time.perf_counter()
    flow = ebflow.fit(x, max_seconds=seconds, progress=False, seed=0)
    taken = time.perf_counter() - started
    report = flow.report
    steps = f"best step {report.best_step} of {report.steps}"
    table = f"{rows} x {columns}:".ljust(12)
    print(table, f"{taken:.1f} s, {steps}, validation NLL {report.nll:.2f}", flush=True)


def main() -> None:
    """Prints a line for each table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="the time limit of each fit")
    parser.add_argument("--busy", type=int, default=2, help="busy processes beside each fit")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    busy = [context.Process(target=work, daemon=True) for _ in range(options.busy)]
    for process in busy:
        process.start()
    limit = f"limit {options.seconds:g} s"
    print(f"{os.cpu_count()} cores, {options.busy} busy processes, {limit}", flush=True)
    for rows, columns in TABLES:
        fit = context.Process(target=measure, args=(rows, columns, options.seconds))
        fit.start()
        fit.join()
    for process in busy:
        process.kill()


if __name__ == "__main__":
    main()
