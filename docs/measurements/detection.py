"""Detectors on several splits of labelled tables, without a store: mean AUROC and its intervals.

    python docs/measurements/detection.py 5 tables/*.parquet

prints AUROCs (%) for splits 0 to 4 of each table. With normal training rows these are of ebflow,
kNN and GMM, with mixed ones of ebflow, MCD and an isolation forest. It draws ``detection.png``.
"""

import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from pipelines.paper.config import RivalConfig
from pipelines.paper.detect import PROTOCOLS, anomaly_scores

DETECTORS = {"normal": ("ebflow", "kNN", "GMM"), "mixed": ("ebflow", "MCD", "IForest")}


def aurocs(path: str, seeds: int) -> dict[tuple[str, str], list[float]]:
    """Returns the AUROC (%) of each protocol and detector on each split of a table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table, found = pd.read_parquet(path), {}
    x, y = table.drop(columns="label").to_numpy(float), table["label"].to_numpy() > 0
    for protocol, rivals in DETECTORS.items():
        for rival in rivals:
            for seed in range(seeds):
                parts = PROTOCOLS[protocol](x, y, seed)
                config = RivalConfig(rival=rival, seed=seed)
                scores = anomaly_scores(config, protocol, parts)
                auroc = 100 * roc_auc_score(parts.labels, scores)
                found.setdefault((protocol, rival), []).append(auroc)
    return found


def plot(means: pd.DataFrame) -> None:
    """Draws ebflow's lead over kNN and GMM on each table, with normal training."""
    means = means.sort_values(("normal", "ebflow"), ascending=False)
    _, axes = plt.subplots(figsize=(6, 8), layout="constrained")
    axes.axvline(0, color="0.3", lw=1)
    for rival, marker in (("kNN", "o"), ("GMM", "x")):
        axes.plot(means["normal", "ebflow"] - means["normal", rival], means.index, marker,
                  label=rival, ms=5)  # fmt: skip
    axes.set(xlabel="AUROC (%), normal training: ebflow's lead, mean of the splits")
    axes.margins(y=0.01)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.figure.savefig("detection.png")


def main(seeds: int, paths: list[str]) -> None:
    """Prints means over splits for each table, then means and leads over tables."""
    with ProcessPoolExecutor(2) as pool:
        results = dict(zip(paths, pool.map(partial(aurocs, seeds=seeds), paths), strict=True))
    means = pd.DataFrame({Path(p).stem: {k: np.mean(v) for k, v in r.items()}
                          for p, r in results.items()}).T  # fmt: skip
    print(means.round(1).to_string())
    plot(means)
    splits = {k: np.mean([r[k] for r in results.values()], 0).round(2) for k in means.columns}
    for (protocol, rival), values in splits.items():
        lead = means[protocol, "ebflow"] - means[protocol, rival]
        width = t.ppf(0.975, len(lead) - 1) * lead.std() / len(lead) ** 0.5
        mean = f"{means[protocol, rival].mean():.2f}, splits {values.tolist()}"
        print(f"{protocol:7} {rival:8} {mean}, lead {lead.mean():.2f} ± {width:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
