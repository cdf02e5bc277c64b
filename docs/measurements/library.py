"""Measures the library on one core, and prints the table of ``library.md``.

Run it on an idle machine: ``OMP_NUM_THREADS=1 python docs/measurements/library.py``.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from runtime import training_steps

import ebflow
from ebflow.anchor import Anchor


def normal_rows(rows: int, columns: int) -> np.ndarray:
    """Returns rows of correlated normal columns with shape (rows, columns)."""
    random = np.random.default_rng(0)
    return random.normal(size=(rows, columns)) @ random.normal(size=(columns, columns))


def seconds(call: Callable[[], object]) -> float:
    """Returns the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure_times() -> None:
    """Prints the seconds of fit, score, sample and impute on 10 columns."""
    x = normal_rows(1000, 10)
    many = normal_rows(200_000, 10)
    incomplete = x[:300].copy()
    incomplete[np.random.default_rng(1).random(incomplete.shape) < 0.2] = np.nan
    flows = []
    print("| call | seconds |\n|---|---|")
    fit = seconds(lambda: flows.append(ebflow.fit(x, max_seconds=5, progress=False)))
    print(f"| `fit` of 1,000 × 10 with `max_seconds=5` | {fit:.1f} |", flush=True)
    (flow,) = flows
    flow.log_prob(many[:10])
    calls = {
        "`log_prob` of 200,000 rows": lambda: flow.log_prob(many),
        "`sample` of 100,000 rows": lambda: flow.sample(100_000),
        "`impute` of 300 rows, a fifth missing": lambda: flow.impute(incomplete),
    }
    for name, call in calls.items():
        print(f"| {name} | {seconds(call):.1f} |", flush=True)


def measure_steps(bins: int, batch: int = 256, steps: int = 100) -> None:
    """Prints the milliseconds of a training step of the default flow of 10 columns."""
    flow = ebflow.architectures.autoregressive((10,), bins=bins)
    step = training_steps(flow, ["lazy_ml"], batch, Anchor(flow, interval=10**9))["lazy_ml"]
    spent = [seconds(step) for _ in range(steps)]
    least, median = 1000 * min(spent), 1000 * float(np.median(spent))
    print(f"| a step of {batch} rows, {bins} bins | {least:.1f} ms (median {median:.1f}) |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure_times()
    for bins in (8, 16):
        measure_steps(bins)
