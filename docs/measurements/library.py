"""Measures the library on one core, and prints the table of ``library.md``.

Run it on an idle machine: ``OMP_NUM_THREADS=1 python docs/measurements/library.py``.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

import ebflow


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


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure_times()
