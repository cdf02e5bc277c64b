"""What is shown while stages run, one job a stage or many."""

import io

import pytest

from pipelines import store
from pipelines.config import ChainConfig
from pipelines.data.prepare import prepare
from pipelines.density.preprocess import preprocess
from pipelines.reporting import progress
from pipelines.reporting.progress import Job, Progress
from pipelines.reporting.terminal import terminal
from pipelines.tracking import metrics_log
from pipelines.training.stage_reports import reporter

from .untracked import Untracked


def row(step, share, nll=None, note=""):
    metrics = {} if nll is None else {"val/nll": nll}
    kind = "validate" if note else "log"
    return {"kind": kind, "step": step, "share": share, "time": 0.0, "metrics": metrics,
            "note": note}  # fmt: skip


def test_a_job_tells_its_latest(tmp_path):
    path = tmp_path / metrics_log.FILE
    job = Job(path, "starting")
    assert not job.look() and job.text == "starting"
    metrics_log.append(path, [row(10, 0.1, nll=5.0), row(20, 0.2)])
    assert job.look() and (job.share, job.text) == (0.2, "step 20, validation NLL 5.00")
    assert not job.look()
    metrics_log.append(path, [row(30, 0.3, note="worse"), row(40, 0.4)])
    assert job.look() and job.notes == ["worse"]


def test_a_search_tells_how_far_it_is(tmp_path):
    path = tmp_path / metrics_log.FILE
    job = Job(path)
    row = {"kind": "search", "share": 0.5, "time": 0.0, "metrics": {}, "text": "12 of 24 trials"}
    metrics_log.append(path, [row])
    assert job.look() and (job.share, job.text) == (0.5, "12 of 24 trials")


def test_a_stage_tells_how_far_it_is_seldom(tmp_path):
    job, report = Job(tmp_path / metrics_log.FILE), reporter(tmp_path)
    for step in range(100):
        report(step / 200, "draws")
    assert job.look() and (job.share, job.text) == (0.0, "draws")
    assert len((tmp_path / metrics_log.FILE).read_text().splitlines()) == 1
    report(0.6, "scores")
    assert job.look() and (job.share, job.text) == (0.6, "scores")


def test_what_is_fitted_in_front_of_a_flow_is_told(tmp_path):
    prepare("digits", tmp_path / "data", rows=300, validation=50, test=50)
    (tmp_path / "out").mkdir()
    preprocess(ChainConfig(), tmp_path / "data", run=Untracked(tmp_path / "out", tmp_path))
    rows, _ = metrics_log.read(tmp_path / metrics_log.FILE)
    assert [row["text"] for row in rows] == [
        "fits the chain", "fits the Gaussian", "fits mixtures of Gaussians"
    ]  # fmt: skip


@pytest.fixture
def shown(home, monkeypatch):
    monkeypatch.setattr(progress, "LOOK_S", 60.0)
    console = terminal(file=io.StringIO(), width=100)
    with Progress(console) as made:
        made.printed = lambda: console.file.getvalue().splitlines()
        yield made


def test_a_lone_job_tells_its_news(shown):
    shown.started("train", "a")
    path = store.work("train", "a") / metrics_log.FILE
    path.parent.mkdir(parents=True)
    metrics_log.append(path, [row(50, 0.5, nll=3.0, note="it gets worse")])
    assert shown._look("train", late=True) == ["train:  50%  step 50, validation NLL 3.00"]
    shown.finished("train", "a")
    lines = shown.printed()
    assert lines[:2] == ["train: started", "train: it gets worse"]
    assert lines[2].startswith("train: done in") and "of" not in lines[2]


def test_what_a_job_says_is_printed_as_it_is(shown):
    """An error of gloo names a place in its sources, which is no markup; nor is a unit."""
    note = "lost [/pytorch/gloo/tcp/pair.cc:537], column 'mass [kg]' :key:"
    shown.started("train", "a")
    path = store.work("train", "a") / metrics_log.FILE
    path.parent.mkdir(parents=True)
    metrics_log.append(path, [row(50, 0.5, note=note)])
    shown._look("train", late=False)
    assert shown.printed()[-1] == f"train: {note}"


def test_a_bar_shows_news_as_they_are(home):
    console = terminal(file=io.StringIO(), width=100, force_terminal=True)
    with Progress(console) as shown:
        shown.bars.add_task("search", total=1, news="lost [/a/b.cc:5] of 'mass [kg]'")
    assert "lost [/a/b.cc:5] of 'mass [kg]'" in console.file.getvalue()


def test_jobs_of_one_stage_share_a_bar(shown):
    for key in "abc":
        shown.started("cell", key)
    shown.finished("cell", "b")
    stage = shown.stages["cell"]
    assert (stage.count, stage.done, stage.share) == (3, 1, pytest.approx(1 / 3))
    assert shown.printed()[-1].endswith("(1 of 3 done)")
    assert len(shown.bars.tasks) == 1


def test_a_queued_job_begins_when_it_writes(shown):
    """What an interrupted run has left there is no beginning."""
    store.work("cell", "b").mkdir(parents=True)
    for key in "ab":
        shown.queued("cell", key)
    assert shown._look("cell", late=True) == ["cell:   0%  0 of 2 done, 2 wait for room"]
    assert shown._look("cell", late=True) == []
    (store.work("cell", "b") / "output").mkdir()
    assert shown._look("cell", late=True) == ["cell: started"]
    assert shown._look("cell", late=True) == ["cell:   0%  0 of 2 done, 1 wait for room"]
    store.work("cell", "a").mkdir()
    assert shown._look("cell", late=False) == ["cell: started"]
    assert shown._look("cell", late=True) == []


def test_a_jobs_time_is_not_that_of_its_wait(shown):
    """One that is over before it was seen to begin has no time to tell."""
    for key in "ab":
        shown.queued("cell", key)
    store.work("cell", "a").mkdir(parents=True)
    shown._look("cell", late=False)
    for key in "ab":
        shown.finished("cell", key)
    first, second = shown.printed()[-2:]
    assert first.startswith("cell: done in") and second == "cell: done at once (2 of 2 done)"
