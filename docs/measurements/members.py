"""Gains of a mixture of several densities over one flow, in equal CPU time of one thread.

::

    OMP_NUM_THREADS=1 python docs/measurements/members.py iris wine tables/magic.parquet

A table is a name in scikit-learn or a Parquet file. One flow gets all seconds; each member gets a
third of them. Members are default flows of seeds 0, 1 and 2, and the mixture of Gaussians of
``ebflow.fit_mixture``. The density is log p = logsumexp(log w + log p_k), and EM on the validation
rows chooses the weights w. All are densities of the same rows, as in ``curves.py``. The seconds of
the mixture of Gaussians are not counted: they are few if rows are few.

Decided before the measurement: a gain counts if its 95 % interval over splits is above 0 and its
mean is above 0.05 nats. The intervals are Student's t, times 1.17 because splits overlap.
"""

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import torch
from curves import Table, split
from scipy import stats
from sklearn import datasets
from torch import Tensor

import ebflow

FLOWS = ("flow 0", "flow 1", "flow 2")
MIXTURES = {
    "one flow, a third of the time": (("flow 0",), True),
    "3 flows, equal weights": (FLOWS, False),
    "3 flows": (FLOWS, True),
    "2 flows and Gaussians": ((*FLOWS[:2], "Gaussians"), True),
    "all four": ((*FLOWS, "Gaussians"), True),
    "the one flow and Gaussians": (("one", "Gaussians"), True),
}
"""The members of each mixture, and True if their weights are fitted; else they are equal."""

LogProbs = Mapping[str, tuple[Tensor, Tensor]]
"""The log-densities of validation and test rows by the name of a member."""


def rows(name: str, seed: int, folder: Path) -> Table:
    """Returns the splits of a table."""
    if not hasattr(datasets, f"load_{name}"):
        return split(Path(name), seed)
    folder.mkdir(parents=True, exist_ok=True)
    getattr(datasets, f"load_{name}")(as_frame=True).data.to_parquet(folder / name)
    return split(folder / name, seed)


def log_probs(table: Table, seconds: float, seed: int) -> LogProbs:
    """Fits all members, and returns their log-densities in float64."""
    limits = {"one": seconds} | dict.fromkeys(FLOWS, seconds / len(FLOWS))
    fitted = {
        name: ebflow.fit(
            table.train, validation=(table.validation,), max_seconds=limit,
            seed=100 * seed + max(k - 1, 0), progress=False,
        )
        for k, (name, limit) in enumerate(limits.items())
    }  # fmt: skip
    fitted["Gaussians"] = ebflow.fit_mixture(table.train, table.validation, seed=seed)
    parts = (table.validation, table.test)
    return {name: tuple(q.log_prob(x).double() for x in parts) for name, q in fitted.items()}


def fitted_weights(log_p: Tensor, steps: int = 200) -> Tensor:
    """Returns log w by EM, for log-densities with shape (members, rows)."""
    log_w = torch.full((len(log_p), 1), 1 / len(log_p)).double().log()
    for _ in range(steps):
        log_w = (log_w + log_p).log_softmax(0).logsumexp(1, keepdim=True)
        log_w = log_w - log_w.logsumexp(0)
    return log_w


def gains(found: LogProbs) -> dict[str, float]:
    """Returns the mean test log-density of each mixture, less that of the one flow, in nats."""
    result = {}
    for name, (members, fits) in MIXTURES.items():
        validation, test = (torch.stack([found[m][k] for m in members]) for k in (0, 1))
        log_w = fitted_weights(validation if fits else torch.zeros_like(validation))
        result[name] = float(((log_w + test).logsumexp(0) - found["one"][1]).mean())
    return result


def cell(values: list[float]) -> str:
    """Returns a mean and its 95 % interval over splits, bold if the gain counts."""
    x = torch.tensor(values, dtype=torch.float64)
    width = 1.17 * stats.t.ppf(0.975, len(x) - 1) * float(x.std()) / len(x) ** 0.5
    text = f"{float(x.mean()):.2f} ± {width:.2f}"
    return f"**{text}**" if float(x.mean()) > max(width, 0.05) else text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--seconds", type=float, default=30.0, help="of one flow")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("members.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    time.perf_counter = time.process_time  # the clock of ``fit``: a busy machine costs no steps
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for seed, name in product(range(options.splits), options.tables):
        if (key := f"{Path(name).stem} {seed}") not in results:
            table = rows(name, seed, options.output.parent / "scikit-learn")
            results[key] = gains(log_probs(table, options.seconds, seed))
            options.output.write_text(json.dumps(results, indent=1))
    print("| table | " + " | ".join(MIXTURES) + " |\n" + "|---" * (1 + len(MIXTURES)) + "|")
    for name in (Path(table).stem for table in options.tables):
        found = [results[f"{name} {seed}"] for seed in range(options.splits)]
        print(f"| {name} | " + " | ".join(cell([g[m] for g in found]) for m in MIXTURES) + " |")
