"""The stage that measures detectors of anomalies: its splits, its data and its detectors."""

import numpy as np
import pandas as pd
import pytest

from pipelines.data.dataset import Dataset
from pipelines.paper import detect
from pipelines.paper.config import RivalConfig
from pipelines.paper.jobs import DETECTION
from tests.prepared import prepare

from .untracked import Untracked

X = np.arange(0.5, 80)[:, None]
Y = np.arange(80) >= 60


def test_no_row_is_on_both_sides_and_no_anomaly_trains():
    train, test, labels = detect.normal(X, Y, 3)
    assert len(train) == 30 and train.max() < 60
    assert sorted(np.r_[train, test].ravel()) == X.ravel().tolist()
    assert ((test[:, 0] >= 60) == labels).all()
    assert (detect.normal(X, Y, 4)[0] != train).any()


def test_mixed_rows_are_sampled_by_their_shares(monkeypatch):
    monkeypatch.setattr(detect, "ROWS", 40)
    train, test, labels = detect.mixed(X, Y, 0)
    assert len(train) == 40 and labels.sum() == 10 and (train == test).all()


def test_the_protocol_of_dte_resamples_small_and_large_tables(monkeypatch):
    train, test, labels = detect.dte(X, Y, 0)
    assert len(train) + len(test) == 1000 and train.max() < 60
    assert ((test[:, 0] >= 60) == labels).all() and 200 < labels.sum() < 300
    assert {*train.ravel()} & {*test.ravel()}, "copies"
    monkeypatch.setattr(detect, "RESAMPLED", 10)
    train, test, _ = detect.dte(X, Y, 0)
    assert train.ravel().tolist() == X[:30].ravel().tolist() and len(test) == 50
    monkeypatch.setattr(detect, "LARGE", 40)
    train, test, _ = detect.dte(X, Y, 0)
    assert len({*np.r_[train, test].ravel()}) == 40


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """60 normal rows, and 20 anomalies of which a category is another one."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(80, 2)), columns=["a", "b"])
    frame["kind"], frame["label"] = np.where(Y, "x", "y"), Y.astype(int)
    frame.to_parquet(folder / "table.parquet")
    prepare(folder / "table.parquet", folder / "data", **DETECTION.data)
    return folder / "data"


def test_all_rows_are_read_and_categories_are_one_hot(table):
    x, y = detect.labelled(Dataset(table))
    assert x.shape == (80, 4) and y.sum() == 20
    assert (x[:, 2:].sum(1) == 1).all() and (x[:, 2:] == x[y][0, 2:]).all(1).sum() == 20


@pytest.mark.parametrize("rival", DETECTION.rivals)
def test_every_detector_prefers_a_far_row(rival):
    rng = np.random.default_rng(0)
    rows = np.r_[rng.normal(size=(20, 3)), np.full((1, 3), 9.0)]
    parts = detect.Parts(rng.normal(size=(60, 3)), rows, np.arange(21) == 20)
    for protocol in detect.PROTOCOLS:
        scores = detect.anomaly_scores(RivalConfig(rival=rival), protocol, parts)
        assert scores.argmax() == 20


@pytest.mark.parametrize("rival", DETECTION.rivals)
def test_many_equal_anomalies_do_not_explain_each_other(rival):
    rng = np.random.default_rng(0)
    rows = np.r_[rng.normal(size=(20, 3)), rng.normal(size=(400, 3)) * 0.1 + 9]
    parts = detect.Parts(rng.normal(size=(1000, 3)), rows, np.arange(420) >= 20)
    scores = detect.anomaly_scores(RivalConfig(rival=rival), "normal", parts)
    assert scores[20:].min() > scores[:20].max()


def test_a_table_is_measured_by_all_protocols(table, tmp_path):
    run = Untracked(tmp_path, tmp_path)
    detect.detect(RivalConfig(rival="kNN"), table, run=run)
    assert {*run.metrics} == {*(score.metric for score in DETECTION.scores), "time/cpu_s"}
    assert run.metrics["normal/auroc"] > 90
