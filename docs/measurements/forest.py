"""Test NLL of adversarial random forests on the rows of ``curves.py``, and their seconds.

    pip install arfpy "numpy<2.4"
    OMP_NUM_THREADS=1 python docs/measurements/forest.py tables/magic.parquet tables/gaia.parquet

The forest's leaves are products of truncated normal distributions of columns; its density is a
mixture of all leaves of all trees. arfpy fits and samples it, but returns no densities of new
rows: this script computes them. Validation chooses the smallest number of rows of a leaf.

Source: Adversarial random forests for density estimation and generative modeling (Watson, Blesch,
Kapar, Wright, 2023), arXiv:2205.09435.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from arfpy.arf import arf
from curves import Table, outcome, split
from scipy import stats
from torch import Tensor

LEAVES = (5, 20, 80)  # The smallest numbers of rows of a leaf that are tried
FLOOR = 1e-3  # The smallest deviation in a leaf, in deviations of the column


class Forest:
    """The density of a fitted forest.

    Arguments:
        rows: Training rows (N, D) in float64.
        least: The smallest number of rows of a leaf.
        seed: The seed of the trees.
    """

    def __init__(self, rows: Tensor, least: int, seed: int) -> None:
        self.scale = rows.std(0).numpy()
        self.names = [str(column) for column in range(rows.shape[1])]
        frame = pd.DataFrame(rows.numpy() / self.scale, columns=self.names)
        np.random.seed(seed)  # noqa: NPY002  (arfpy draws from the global state)
        self.model = arf(frame, min_node_size=least, random_state=seed, verbose=False)
        fitted = self.model.forde()["cnt"]
        fitted["variable"] = fitted["variable"].astype(int)
        self.leaves = fitted.sort_values(["tree", "nodeid", "variable"])
        self.weights = self.model.bnds.groupby(["tree", "nodeid"])["cvg"].first()

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log-densities (N,) in nats; minus infinity outside all leaves."""
        values = x.numpy() / self.scale
        places = self.model.clf.apply(pd.DataFrame(values, columns=self.names))
        trees = [self._tree(values, tree, nodes) for tree, nodes in enumerate(places.T)]
        mean = np.logaddexp.reduce(trees, axis=0) - np.log(len(trees))
        return torch.from_numpy(mean - np.log(self.scale).sum())

    def _tree(self, values: np.ndarray, tree: int, nodes: np.ndarray) -> np.ndarray:
        """Returns the log-density that one tree has at rows, whose leaves are ``nodes``."""
        leaves = self.leaves[self.leaves["tree"] == tree]
        width, known = values.shape[1], leaves["nodeid"].to_numpy()[:: values.shape[1]]
        mean, deviation, low, high = (
            leaves[name].to_numpy().reshape(-1, width) for name in ("mean", "sd", "min", "max")
        )
        place = np.searchsorted(known, nodes).clip(0, len(known) - 1)
        mean, low, high = mean[place], low[place], high[place]
        deviation = np.nan_to_num(deviation[place], nan=FLOOR).clip(FLOOR)
        ends = (low - mean) / deviation, (high - mean) / deviation
        log_density = stats.truncnorm.logpdf(values, *ends, loc=mean, scale=deviation).sum(1)
        weights = self.weights.loc[tree].reindex(known[place]).to_numpy()
        return np.where(known[place] == nodes, log_density + np.log(weights), -np.inf)


def measure(table: Table, seed: int) -> str:
    """Returns the results of the best forest by validation, as cells of a Markdown table."""
    started, found = time.process_time(), []
    for least in LEAVES:
        forest = Forest(table.train, least, seed)
        found.append((outcome(forest.log_prob, table), least))
    (_, nll, error), least = min(found)
    return f"{nll:.2f} ± {error:.2f} | {least} | {time.process_time() - started:.0f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", type=Path, nargs="+", help="Parquet files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| table | test NLL | rows of a leaf | CPU seconds |\n|---|---|---|---|")
    for path in options.tables:
        found = measure(split(path, options.seed), options.seed)
        print(f"| {path.stem} | {found} |", flush=True)
