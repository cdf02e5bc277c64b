"""Fits densities to tables with a known density, and prints how far they are from it.

::

    OMP_NUM_THREADS=1 python docs/measurements/known.py --seeds 3

The distance from the true density p is KL(p ‖ q) = E[log p(x) − log q(x)] in nats, a mean over
fresh rows. Every fit uses one core. Each result is added to ``known.json``, and not
measured again.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from curves import METHODS, Density, Table
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    LogNormal,
    MixtureSameFamily,
    Normal,
    StudentT,
)

import ebflow
from ebflow.randomness import generator, uniform

TRAIN, VALIDATION, TEST = 8_000, 1_000, 20_000  # Rows
ONE = torch.ones((), dtype=torch.float64)

Columns = Mapping[str, Tensor]
"""The values of columns; categories are codes."""


@dataclass(frozen=True)
class Truth:
    """A table with a known density: the product of the columns' conditional densities.

    Attributes:
        columns: The distribution of each column given those before it.
        levels: The texts of categories.
        order: The columns in the order of the table.
    """

    columns: dict[str, Callable[[Columns], Distribution]]
    order: Sequence[str]
    levels: dict[str, Sequence[str]] = field(default_factory=dict)

    def sample(self, count: int, seed: int, part: str) -> Columns:
        """Returns the values of ``count`` rows."""
        values: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(generator(seed, "known", part).initial_seed())
            for name, given in self.columns.items():
                values[name] = given(values).expand((count,)).sample()
        return {name: values[name] for name in self.order}

    def log_prob(self, values: Columns) -> Tensor:
        """Returns the log-density of the numbers times the probability of the categories."""
        each = (given(values).log_prob(values[name]) for name, given in self.columns.items())
        return torch.stack([*each]).double().sum(0)

    def frame(self, values: Columns) -> pd.DataFrame:
        """Returns the table."""
        frame = pd.DataFrame({name: column.numpy() for name, column in values.items()})
        return frame.assign(**{
            name: np.array(levels)[frame[name]] for name, levels in self.levels.items()
        })  # fmt: skip

    def numbers(self, values: Columns, seed: int) -> Tensor:
        """Returns rows with shape (N, D); uniform noise gives categories a density."""
        rows = torch.stack([column.double() for column in values.values()], 1)
        coded = torch.tensor([name in self.levels for name in self.order])
        return rows + coded * uniform(rows.shape, rows, generator(seed, "known", "noise"))


def network(strength: float, width: int = 30, parents: int = 6, features: int = 8) -> Truth:
    """Returns normal columns in random order, given a function of six before them.

    ``strength`` scales the function; the noise around it has standard deviations of 0.2 to 0.8.
    """
    random = generator(0, "known", "network")
    names = [f"x{place}" for place in torch.randperm(width, generator=random)]
    normal = partial(torch.randn, generator=random, dtype=torch.float64)

    def column(k: int) -> Callable[[Columns], Distribution]:
        chosen = [names[j] for j in torch.randperm(k, generator=random)[:parents]]
        inner, offsets, outer = normal(len(chosen), features), normal(features), normal(features)
        std = 0.2 + 0.6 * torch.rand((), generator=random, dtype=torch.float64)

        def given(values: Columns) -> Distribution:
            sums = sum(values[name][:, None] * w for name, w in zip(chosen, inner, strict=True))
            return Normal(strength * torch.tanh(sums + offsets) @ outer / features**0.5, std)

        return given

    columns = {name: column(k) for k, name in enumerate(names)}
    return Truth(columns, sorted(names, key=lambda name: int(name[1:])))


def curves() -> Truth:
    """Returns a skewed column, a wave of varying width, heavy tails, and two branches."""
    columns = {
        "size": lambda v: LogNormal(0 * ONE, 0.7),
        "wave": lambda v: Normal(torch.sin(3 * v["size"].log()), 0.1 + 0.1 * v["size"]),
        "tail": lambda v: StudentT(3 * ONE, v["wave"] / 2, 1.0),
        "east": lambda v: Normal(v["wave"], 1.0),
        "north": lambda v: _branches(1 + v["east"] ** 2 / 4),
    }
    return Truth(columns, [*columns])


def _branches(height: Tensor) -> Distribution:
    """Returns two Gaussians of equal weight, above and below 0."""
    means = torch.stack([height, -height], -1)
    return MixtureSameFamily(Categorical(torch.ones_like(means)), Normal(means, 0.2))


def orders() -> Truth:
    """Returns three columns of categories, and three numbers that depend on them."""
    random = np.random.default_rng(0)
    kinds = torch.from_numpy(random.dirichlet([1.0] * 3, 4))
    prices = torch.from_numpy(random.normal(3, 1, (4, 3)))
    columns = {
        "region": lambda v: Categorical(ONE * torch.tensor([0.4, 0.3, 0.2, 0.1])),
        "kind": lambda v: Categorical(kinds[v["region"]]),
        "price": lambda v: LogNormal(prices[v["region"], v["kind"]], 0.4),
        "returned": lambda v: _coin(v["price"].log() - 4 + v["kind"]),
        "weight": lambda v: Normal(v["price"].log() ** 2 / 4, 0.1 + 0.1 * v["kind"]),
        "days": lambda v: Normal(ONE * (3 + v["region"] + 4 * v["returned"]), 0.3 + v["returned"]),
    }
    levels = {"region": ["east", "north", "south", "west"], "kind": ["a", "b", "c"],
              "returned": ["no", "yes"]}  # fmt: skip
    return Truth(columns, [*columns], levels)


def _coin(logit: Tensor) -> Distribution:
    return Categorical(logits=torch.stack([0 * logit, logit], -1))


TRUTHS = {
    "weak network (30 columns)": network(1.0),
    "network (30 columns)": network(3.0),
    "curves (5 columns)": curves(),
    "orders (3 categories, 3 numbers)": orders(),
}
NAMES = ("ebflow", "Gaussian mixture", "NSF with LU", "NSF with LU, our columns")

Job = tuple[str, str, float, int]
"""The names of a table and of a method, the seconds of the fit, and the seed of all rows."""


def measure(job: Job) -> tuple[float, float]:
    """Returns the divergence of a fitted density, and its standard error over fresh rows."""
    name, method, seconds, seed = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    truth, counts = TRUTHS[name], {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    rows = {part: truth.sample(count, seed, part) for part, count in counts.items()}
    fit = of_frame if method == "ebflow" else partial(of_numbers, METHODS[method])
    gap = truth.log_prob(rows["test"]) - fit(truth, rows, seconds, seed).double()
    return float(gap.mean()), float(gap.std()) / TEST**0.5


def of_frame(truth: Truth, rows: Mapping[str, Columns], seconds: float, seed: int) -> Tensor:
    """Returns the log-density of the test rows by ebflow's default, fitted to a frame."""
    train, validation, test = map(truth.frame, rows.values())
    flow = ebflow.fit(
        train, validation=(validation,), max_seconds=seconds, seed=seed, progress=False
    )
    return flow.log_prob(test)


def of_numbers(
    fit: Callable[[Table, float, int], Density],
    truth: Truth,
    rows: Mapping[str, Columns],
    seconds: float,
    seed: int,
) -> Tensor:
    """Returns the log-density of the test rows by another method, fitted to numbers."""
    table = Table(*(truth.numbers(part, seed + k) for k, part in enumerate(rows.values())))
    return fit(table, seconds, seed)(table.test)


def report(results: Mapping[str, Sequence[float]], seeds: int, seconds: Sequence[float]) -> None:
    """Prints a table: mean divergences over seeds, ± standard errors over their fresh rows."""
    print(f"| fit | {' | '.join(TRUTHS)} |")
    print("|---" * (1 + len(TRUTHS)) + "|")
    for name, limit in product(NAMES, seconds):
        cells = []
        for table in TRUTHS:
            found = np.array([results[str((table, name, limit, seed))] for seed in range(seeds)])
            error = np.sqrt((found[:, 1] ** 2).sum()) / seeds
            cells.append(f"{found[:, 0].mean():.3f} ± {error:.3f}")
        print(f"| {name}, {limit:g} s | {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=(10.0, 30.0))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="fits at a time, on a core each")
    parser.add_argument("--output", type=Path, default=Path("known.json"))
    options = parser.parse_args()
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    jobs = product(TRUTHS, NAMES, options.seconds, range(options.seeds))
    missing = [job for job in jobs if str(job) not in results]
    with ProcessPoolExecutor(options.workers) as pool:
        for job, found in zip(missing, pool.map(measure, missing), strict=True):
            results[str(job)] = found
            options.output.write_text(json.dumps(results, indent=1))
    report(results, options.seeds, options.seconds)
