"""The experiment on anomalies: its tables, its splits and its means over tables."""

import json

import numpy as np
import pandas as pd
import pytest

from ebflow.errors import BadInput
from pipelines.paper import detect, detection, labelled
from pipelines.paper.cell import Cell, Finished
from pipelines.paper.config import DetectConfig, PaperConfig

X = np.arange(0.5, 80)[:, None]
Y = np.r_[np.zeros(60), np.ones(20)]


def test_no_row_is_on_both_sides_and_no_anomaly_trains():
    train, test, labels = detect.normal_training(X, Y, 3)
    assert len(train) == 30 and train.max() < 60
    assert sorted(np.r_[train, test].ravel()) == X.ravel().tolist()
    assert ((test[:, 0] >= 60) == labels).all()
    assert (detect.normal_training(X, Y, 4)[0] != train).any()


def test_contaminated_rows_are_sampled_by_their_shares(monkeypatch):
    monkeypatch.setattr(detect, "ROWS", 40)
    train, test, labels = detect.contaminated_training(X, Y, 0)
    assert len(train) == 40 and labels.sum() == 10 and (train == test).all()


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_files_are_read_alike(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    if suffix == ".npz":
        np.savez(path, X=X, y=Y)
    else:
        frame = pd.DataFrame({"x": X[:, 0], "label": Y.astype(int)})
        frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    assert [*labelled.files([str(tmp_path)])] == [path]
    x, y = labelled.read(path)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize(("x", "y"), [(X, Y + 1), (X[:-1], Y), (X * np.nan, Y), (X, Y * 0)])
def test_bad_tables(tmp_path, x, y):
    np.savez(tmp_path / "bad.npz", X=x, y=y)
    with pytest.raises(BadInput, match=r"bad\.npz: found"):
        labelled.read(tmp_path / "bad.npz")


def test_no_tables(tmp_path):
    config = PaperConfig(experiment="detection", sources=(str(tmp_path),))
    with pytest.raises(BadInput, match="--sources"):
        [*detection.cells(config, 0)]


def test_intervals_are_over_tables(tmp_path):
    finished = []
    for k, (ours, knn) in enumerate([(0.9, 0.8), (0.7, 0.6), (1.0, 0.8), (0.8, 0.7)]):
        folder, (table, seed) = tmp_path / str(k), divmod(k, 2)
        folder.mkdir()
        values = {"ebflow": ours, "kNN": knn}
        keys = [(measure, name) for measure in detection.MEASURES for name in values]
        metrics = {f"{measure}/{name}": values[name] for measure, name in keys}
        (folder / "evaluation.json").write_text(json.dumps(metrics))
        cell = Cell({"table": f"t{table}"}, DetectConfig(source="a.npz"), seed)
        finished.append(Finished(cell, [folder]))
    ours, knn = detection.rows(finished)
    assert ours["labels"] == {"detector": "ebflow"}
    assert ours["normal/auroc"] == pytest.approx(85) and ours["normal/rank"] == 1
    assert knn["normal/lead"] == pytest.approx(12.5)
    assert 1.96 * knn["normal/lead_se"] == pytest.approx(12.706 * 2.5, rel=1e-3)
    assert detection.figure([ours, knn])[0].axes


@pytest.mark.slow
def test_every_detector_prefers_a_far_row():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(60, 3))
    rows = np.r_[rng.normal(size=(20, 3)), np.full((1, 3), 9.0)]
    for name, fits in detect.all_detectors().items():
        for fit in fits:
            assert fit(train, 0)(rows).argmax() == 20, name
