"""From a labelled table to the AUROC of one detector: ebflow's, or one that people use.

Class 0 is normal, all others are anomalies. Three protocols choose the rows that train and test:

* *normal*: half of the normal rows, at random, train a detector. The other normal rows and all
  anomalies test it. No row is on both sides.
* *mixed*: all rows train a detector, without labels, and are ranked by it.
* *dte*: the first half of the normal rows train a detector, and all other rows test it. Before
  that, tables of less than 1,000 rows are resampled to 1,000, so that copies of a test row may
  train. This is no measure of new rows, but compares with published numbers.

Detectors have one setting for all tables. Those of other packages see standardized columns.

Source: On Diffusion Modeling for Anomaly Detection (Livernoche, Jain, Hezaveh, Ravanbakhsh, 2024),
arXiv:2305.18593, for *dte*.
"""

import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.covariance import EllipticEnvelope
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ebflow.detector import FlowDetector
from ebflow.randomness import generator
from pipelines.data.dataset import Dataset
from pipelines.paper.config import RivalConfig
from pipelines.tracking.run import StageRun

ROWS = 4_000  # Most rows for training, and most normal rows and anomalies for testing
RESAMPLED, LARGE = 1_000, 10_000  # Least and most rows of a table in the protocol of DTE

# Gaussians of GMM, and principal components of MCD and GMM at most.
COMPONENTS, DIRECTIONS = 8, 100

FEW = 50  # Rows that ECOD and COPOD score at once, because they rank them among each other

# Reference rows of ebflow's score, by protocol; None: all.
REFERENCES = {"normal": None, "mixed": 64, "dte": None}


class Parts(NamedTuple):
    """Rows that train and test a detector, and the labels of the latter."""

    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray


def detect(config: RivalConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: the AUROC by every protocol, in %, and the CPU seconds."""
    torch.set_num_threads(config.threads)
    x, y = labelled(run.open(config, Dataset(data)))
    metrics, start = {}, time.process_time()
    for protocol, split in PROTOCOLS.items():
        parts = split(x, y, config.seed)
        with warnings.catch_warnings(action="ignore"):  # of rivals' convergence
            scores = anomaly_scores(config, protocol, parts)
        metrics[f"{protocol}/auroc"] = 100 * float(roc_auc_score(parts.labels, scores))
    run.write_metrics({**metrics, "time/cpu_s": time.process_time() - start})


def labelled(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns all rows with shape (N, D), and True for each anomaly."""
    splits = [dataset.split(name) for name in ("train", "validation", "test")]
    x = torch.cat([split.tensor() for split in splits]).double().numpy()
    y = torch.cat([split.labels() for split in splits]).numpy()
    columns = dataset.manifest.columns
    return x if columns is None else columns.one_hot(x), y > 0


def normal(x: np.ndarray, y: np.ndarray, seed: int) -> Parts:
    """Returns half of the normal rows, and the other rows."""
    rows, anomalies = (_random(seed).permutation(np.flatnonzero(y == label)) for label in (0, 1))
    half = len(rows) // 2
    test = np.r_[rows[half:][:ROWS], anomalies[:ROWS]]
    return Parts(x[rows[:half][:ROWS]], x[test], y[test])


def mixed(x: np.ndarray, y: np.ndarray, seed: int) -> Parts:
    """Returns all rows twice; a sample of many has each label's share of the rows."""
    share = min(1.0, ROWS / len(x))
    parts = (_random(seed).permutation(np.flatnonzero(y == label)) for label in (0, 1))
    rows = np.concatenate([part[: max(1, round(share * len(part)))] for part in parts])
    return Parts(x[rows], x[rows], y[rows])


def dte(x: np.ndarray, y: np.ndarray, seed: int) -> Parts:
    """Returns the first half of the normal rows, and the other rows, after resampling."""
    if not RESAMPLED <= len(x) <= LARGE:
        few = len(x) < RESAMPLED
        rows = _random(seed).choice(len(x), RESAMPLED if few else LARGE, replace=few)
        x, y = x[rows], y[rows]
    rows, anomalies = np.flatnonzero(~y), np.flatnonzero(y)
    half = len(rows) // 2
    test = np.r_[rows[half:], anomalies]
    return Parts(x[rows[:half]], x[test], y[test])


PROTOCOLS = {"normal": normal, "mixed": mixed, "dte": dte}


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(generator(seed, "detection").initial_seed())


def anomaly_scores(config: RivalConfig, protocol: str, data: Parts) -> np.ndarray:
    """Returns the scores of the test rows, larger for anomalies."""
    if config.rival == "ebflow":
        options = {"references": REFERENCES[protocol], "random_state": config.seed}
        return -FlowDetector(**options).fit(data.train).score_samples(data.test)
    scaler = StandardScaler().fit(data.train)
    train, test = scaler.transform(data.train), scaler.transform(data.test)
    if config.rival == "kNN":
        return NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)[0][:, -1]
    if config.rival in PYOD:
        model, size = _pyod(config).fit(train), len(test) if config.rival == "INNE" else FEW
        parts = np.split(test, range(size, len(test), size))
        return np.concatenate([model.decision_function(rows) for rows in parts])
    return -_of_sklearn(config, *train.shape).fit(train).score_samples(test)


PYOD = ("INNE", "ECOD", "COPOD")


def _pyod(config: RivalConfig) -> BaseEstimator:
    from pyod.models import copod, ecod, inne  # an optional package

    if config.rival == "INNE":
        return inne.INNE(random_state=config.seed)
    return {"COPOD": copod.COPOD, "ECOD": ecod.ECOD}[config.rival]()


def _of_sklearn(config: RivalConfig, rows: int, columns: int) -> BaseEstimator:
    """Returns a detector of scikit-learn; principal components go before covariances."""
    seed = config.seed
    axes = PCA(min(DIRECTIONS, columns, rows // 2), random_state=seed)
    count = min(COMPONENTS, max(1, rows // 10))
    return {
        "GMM": make_pipeline(axes, GaussianMixture(count, reg_covar=1e-3, random_state=seed)),
        "MCD": make_pipeline(axes, EllipticEnvelope(random_state=seed)),
        "LOF": LocalOutlierFactor(min(20, rows - 1), novelty=True),
        "IForest": IsolationForest(random_state=seed),
    }[config.rival]
