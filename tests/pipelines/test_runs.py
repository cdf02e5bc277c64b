"""``ebflow runs`` on a real embedded store."""

import re
import sys

import pytest

from pipelines.tracking.run import StageRun
from pipelines.tracking.tracker import connect

# Final metrics of three runs, by name, the oldest first
RUNS = {
    "first": {"test/nll": 3.0, "test/bpd": 1.5, "test/gain_over_mixture": 1.0, "study/A1": 0.2},
    "second": {"test/nll": 2.0, "test/bpd": 1.0, "test/gain_over_mixture": 2.0, "study/A1": 0.9},
    "third": {},
}


@pytest.fixture
def tracked(tracking_home, monkeypatch):
    """A store with three runs: two finished ones with curves, and one that failed."""
    monkeypatch.setenv("COLUMNS", "120")
    tracker = connect("density", "key")
    for rate, (name, metrics) in enumerate(RUNS.items(), 1):
        run_id = tracker.start(f"{name} · dsm", {"ebflow.name": name, "ebflow.data": "digits"})
        run = StageRun(tracker.client, run_id)
        run.log_params({"train": {"lr": rate, "steps": 100, "split": [rate, 2]}})
        run.log_metrics(metrics)
        if metrics:
            points = range(0, 101, 20)
            run.log_rows({"step": s, "time": s, "metrics": {"val/nll": rate + 1 / (s + 1)}}
                         for s in points)  # fmt: skip
            with tracker.stage("train", "key", parent=run_id):
                pass
        tracker.client.set_terminated(run_id, "FINISHED" if metrics else "FAILED")
    return tracker


def names(result):
    """Returns the names in the table, from above."""
    assert result.code == 0, result.err
    return re.findall(r"\d\d:\d\d +(\w+)", result.text)


def test_runs_are_listed_newest_first(tracked, ebflow):
    result = ebflow("runs")
    assert names(result) == ["third", "second", "first"]
    assert "failed" in result.text and "1.5" in result.text and "digits" in result.text
    assert names(ebflow("runs", "--limit", 1)) == ["third"]


def test_what_is_no_database_of_mlflow_is_one_line(home, ebflow):
    home.mkdir()
    (home / "mlflow.db").write_text("no database" * 100)
    result = ebflow("runs")
    assert result.code == 1 and len(result.err) == 1 and "not a database" in result.err[0]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(tracked, ebflow, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = ebflow("runs")
    assert max(map(len, result.out)) <= columns
    for name in ("first", "test/nll", "test/bpd", "finished"):
        assert name in result.text


def test_a_narrow_terminal_cuts_no_column(tracked, ebflow, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert re.search(r"test/bpd +id *\n", ebflow("runs").text)


def test_the_best_come_first_and_what_was_not_measured_not_at_all(tracked, ebflow):
    for metric in ("test/bpd", "test/gain_over_mixture"):  # of gains the greatest is best
        assert names(ebflow("runs", "--best-by", metric)) == ["second", "first"]


def test_the_best_value_of_a_metric_of_a_study_is_asked_for(tracked, ebflow):
    """Nothing in its name shows whether a cosine should be large."""
    words = ("runs", "--best-by", "study/A1", "--limit", 1)
    expected = "--best: found no value, expected least or greatest, the best value of study/A1"
    assert expected in ebflow(*words).refusal
    found = ebflow(*words, "--best", "greatest")
    assert names(found) == ["second"] and "ordered by study/A1, the greatest first" in found.text
    assert names(ebflow(*words, "--best", "least")) == ["first"]


BAD = {
    "order": ("runs --best least", "--best: found least, expected --best-by with the metric"),
    "metric": ("runs --best-by test/npl", "--best-by: found 'test/npl', expected a metric of"),
    "limit": ("runs --limit 0", "--limit: found 0, expected at least 1"),
}


@pytest.mark.parametrize("words, line", BAD.values(), ids=BAD)
def test_bad_input_is_one_line(tracked, ebflow, words, line):
    result = ebflow(*words.split())
    assert line in result.refusal


def test_without_a_store_nothing_is_made(home, ebflow, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # Its import may take seconds
    result = ebflow("runs")
    assert result.code == 2
    assert result.err == [f"ebflow: {home}: found no runs, expected those of `ebflow run density`"]
    assert not home.exists()
