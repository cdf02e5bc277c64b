"""From a labelled table to the AUROC of detectors: ebflow's, and those that people use.

*Normal training*: half of the normal rows, at random, train a detector. The other normal rows and
all anomalies test it. No row is on both sides. *Contaminated training*: all rows train a detector,
without labels, and are ranked by it. At most ``ROWS`` rows of each kind are used, at random.
Detectors have one setting for all tables. Those of other packages see standardized columns.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from sklearn.covariance import MinCovDet
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ebflow.detector import FlowDetector
from ebflow.randomness import generator
from pipelines.paper.config import DetectConfig
from pipelines.paper.labelled import ROWS as FILE
from pipelines.tracking.run import StageRun

ROWS = 4_000
"""Most rows for training, and most normal rows and anomalies for testing."""

NEIGHBOURS, COMPONENTS, DIRECTIONS = 5, 8, 100
"""Neighbours of kNN, Gaussians of GMM, and principal components of MCD and GMM at most."""

REFERENCES = 64
"""Reference rows of ebflow's score in contaminated training."""

Fit = Callable[[np.ndarray, int], Callable[[np.ndarray], np.ndarray]]
"""From training rows and a seed to a function that scores rows, larger for anomalies."""


def detect(config: DetectConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: AUROC and seconds by protocol and detector."""
    torch.set_num_threads(config.threads)
    run.log_params(config.model_dump())
    with np.load(data / FILE) as table:
        x, y = table["X"], table["y"]
    detectors, metrics = all_detectors(), {"rows": float(len(x)), "columns": x.shape[1]}
    for k, (name, fits) in enumerate(detectors.items()):
        run.reporter.progress(k / len(detectors), name)
        for protocol, split, fit in zip(PROTOCOLS, SPLITS, fits, strict=True):
            for what, value in measured(fit, split(x, y, config.seed), config.seed).items():
                metrics[f"{protocol}/{what}/{name}"] = value
    run.write_metrics(metrics)


def measured(fit: Fit, parts: tuple[np.ndarray, ...], seed: int) -> dict[str, float]:
    """Returns the AUROC of a detector, and its CPU seconds of fitting and scoring."""
    train, test, labels = parts
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rivals' convergence, of short trainings
        scores = fit(train, seed)(test)
    seconds = time.process_time() - start
    return {"auroc": float(roc_auc_score(labels, scores)), "seconds": seconds}


def normal_training(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    """Returns half of the normal rows, the other rows, and their labels."""
    random = np.random.default_rng(generator(seed, "detection", "split").initial_seed())
    normal, anomalies = (random.permutation(np.flatnonzero(y == label)) for label in (0, 1))
    half = len(normal) // 2
    train, rest = normal[:half][:ROWS], normal[half:][:ROWS]
    test = np.r_[rest, anomalies[:ROWS]]
    return x[train], x[test], y[test]


def contaminated_training(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    """Returns all rows twice, and their labels; a sample has each label's share of the rows."""
    random = np.random.default_rng(generator(seed, "detection", "sample").initial_seed())
    share = min(1.0, ROWS / len(x))
    parts = (random.permutation(np.flatnonzero(y == label)) for label in (0, 1))
    rows = np.concatenate([part[: max(1, round(share * len(part)))] for part in parts])
    return x[rows], x[rows], y[rows]


PROTOCOLS, SPLITS = ("normal", "contaminated"), (normal_training, contaminated_training)


def all_detectors() -> Mapping[str, tuple[Fit, Fit]]:
    """Returns two functions per detector, one for each protocol; pyod's if it is installed."""
    others = {"kNN": _knn, "GMM": _gmm, "LOF": _lof, "isolation forest": _forest, "MCD": _mcd}
    if find_spec("pyod"):
        others |= {name: partial(_pyod, name=name) for name in ("ECOD", "COPOD", "INNE")}
    pairs = {name: (partial(_standardized, fit=fit),) * 2 for name, fit in others.items()}
    return {"ebflow": (_ebflow, partial(_ebflow, references=REFERENCES)), **pairs}


def _ebflow(x: np.ndarray, seed: int, **options: float) -> Callable[[np.ndarray], np.ndarray]:
    detector = FlowDetector(random_state=seed, **options).fit(x)
    return lambda rows: -detector.score_samples(rows)


def _standardized(x: np.ndarray, seed: int, fit: Fit) -> Callable[[np.ndarray], np.ndarray]:
    scaler = StandardScaler().fit(x)
    score = fit(scaler.transform(x), seed)
    return lambda rows: score(scaler.transform(rows))


def _knn(x: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(x))).fit(x)
    return lambda rows: index.kneighbors(rows)[0][:, -1]


def _gmm(x: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    axes, count = _axes(x, seed), min(COMPONENTS, max(1, len(x) // 10))
    model = GaussianMixture(count, reg_covar=1e-3, random_state=seed).fit(axes.transform(x))
    return lambda rows: -model.score_samples(axes.transform(rows))


def _lof(x: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    model = LocalOutlierFactor(min(20, len(x) - 1), novelty=True).fit(x)
    return lambda rows: -model.score_samples(rows)


def _forest(x: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    model = IsolationForest(random_state=seed).fit(x)
    return lambda rows: -model.score_samples(rows)


def _mcd(x: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    axes = _axes(x, seed)
    model = MinCovDet(random_state=seed).fit(axes.transform(x))
    return lambda rows: model.mahalanobis(axes.transform(rows))


def _axes(x: np.ndarray, seed: int) -> PCA:
    return PCA(min(DIRECTIONS, x.shape[1], len(x) // 2), random_state=seed).fit(x)


def _pyod(x: np.ndarray, seed: int, name: str) -> Callable[[np.ndarray], np.ndarray]:
    from pyod.models import copod, ecod, inne  # an optional package

    kinds = {"COPOD": copod.COPOD, "ECOD": ecod.ECOD, "INNE": inne.INNE}
    options = {"random_state": seed} if name == "INNE" else {}
    return kinds[name](**options).fit(x).decision_function
