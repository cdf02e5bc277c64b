"""Progress of stages, one job a stage or many."""

import io
import queue
import re
import threading
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import RayError

from pipelines import metrics_log
from pipelines.cluster.connection import Connection
from pipelines.config import PreprocessFit
from pipelines.density.preprocess import preprocess
from pipelines.reporting import terminal as shown_on
from pipelines.reporting.terminal import Progress, terminal
from pipelines.tracking.run import Reporter
from tests.prepared import prepare

from .untracked import Untracked


def row(step, share, nll=None, note=""):
    metrics = {} if nll is None else {"val/nll": nll}
    return metrics_log.row("validate" if note else "log", step, share, note, metrics=metrics)


@pytest.fixture
def shown():
    return []


@pytest.fixture
def reporter(tmp_path, shown):
    return Reporter(tmp_path / metrics_log.FILE, show=lambda *message: shown.append(message))


def test_rows_are_shown_by_step_and_likelihood(reporter, shown):
    reporter.log([row(10, 0.1, nll=5.0), row(20, 0.2)])
    assert shown[-1] == (0.2, "step 20, validation NLL 5.00", "")
    resumed = Reporter(reporter.file, show=lambda *message: shown.append(message))
    resumed.log([row(25, 0.25)])
    assert shown[-1] == (0.25, "step 25, validation NLL 5.00", "")
    reporter.log([row(30, 0.3, note="worse"), row(40, 0.4, note="worse")])
    assert [note for _, _, note in shown if note] == ["worse"]


def test_a_stage_shows_its_progress_seldom(reporter, shown):
    for step in range(100):
        reporter.progress(step / 200, "draws")
    assert shown == [(0.0, "draws", "")]
    reporter.progress(0.6, "scores")
    assert shown[1:] == [(0.6, "scores", "")]


def test_what_is_fitted_in_front_of_a_flow_is_shown(tmp_path):
    prepare("digits", tmp_path / "data", rows=300, validation=50, test=50)
    (tmp_path / "out").mkdir()
    run = Untracked(tmp_path / "out", tmp_path)
    preprocess(PreprocessFit(), tmp_path / "data", run=run)
    assert run.shown == [
        "fits the preprocessing",
        "fits the Gaussian",
        "fits mixtures of Gaussians",
    ]


def test_messages_are_delivered_after_the_loss_of_an_actor_and_on_a_full_disk(monkeypatch):
    monkeypatch.setattr("pipelines.cluster.connection.WAIT_S", 0.0)
    answers = iter([queue.Empty(), RayError("lost"), ("train", 0.5), ("train", 0.6)])
    connection, shown = object.__new__(Connection), []
    connection.stopped = threading.Event()

    def get(timeout):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def show(*message):
        shown.append(message)
        if len(shown) == 1:
            raise OSError(28, "No space left on device")
        connection.stopped.set()

    connection.queue = SimpleNamespace(get=get)
    connection.deliver(show)
    assert shown == [("train", 0.5), ("train", 0.6)]


@pytest.fixture
def terminal_shown():
    console = terminal(file=io.StringIO(), width=100)
    with Progress(console) as made:
        made.printed_lines = lambda: console.file.getvalue().splitlines()
        yield made


def test_a_lone_job_shows_its_news(terminal_shown, monkeypatch):
    monkeypatch.setattr(shown_on, "LINE_S", -1.0)
    terminal_shown.started("train", "a")
    terminal_shown.report("train", "a", 0.5, "step 50", "it gets worse")
    terminal_shown.finished("train", "a")
    terminal_shown.report("train", "a", 0.5, "too late", "")
    lines = terminal_shown.printed_lines()
    assert lines[:3] == ["train: started", "train: it gets worse", "train:  50%  step 50"]
    assert lines[3].startswith("train: done in") and "of" not in lines[3] and len(lines) == 4


def test_a_job_goes_on_after_its_last_step(terminal_shown, monkeypatch):
    monkeypatch.setattr(shown_on, "LINE_S", -1.0)
    terminal_shown.started("train", "a")
    terminal_shown.report("train", "a", 1.0, "step 100", "")
    terminal_shown.report("train", "a", 0.2, "step 20", "resumes from step 20")
    assert terminal_shown.printed_lines()[-1] == "train:  20%  step 20"


def test_a_note_is_printed_as_it_is(terminal_shown):
    """An error of gloo names a place in its sources, which is no markup; nor is a unit."""
    note = "lost [/pytorch/gloo/tcp/pair.cc:537], column 'mass [kg]' :key:"
    terminal_shown.started("train", "a")
    terminal_shown.report("train", "a", 0.5, "", note)
    assert terminal_shown.printed_lines()[-1] == f"train: {note}"


def test_a_bar_shows_news_as_they_are():
    console = terminal(file=io.StringIO(), width=100, force_terminal=True)
    with Progress(console) as shown:
        shown.bars.add_task("search", total=1, news="lost [/a/b.cc:5] of 'mass [kg]'")
    assert "lost [/a/b.cc:5] of 'mass [kg]'" in console.file.getvalue()


def test_jobs_of_one_stage_share_a_bar(terminal_shown):
    for key in "abc":
        terminal_shown.started("cell", key)
    terminal_shown.finished("cell", "b")
    assert terminal_shown.bars.tasks[0].completed == pytest.approx(1 / 3)
    assert terminal_shown.printed_lines()[-1].endswith("(1 of 3 done)")
    assert len(terminal_shown.bars.tasks) == 1


def test_a_queued_job_starts_with_its_first_message(terminal_shown):
    for key in "ab":
        terminal_shown.queued("cell", key)
    assert terminal_shown.bars.tasks[0].fields["news"] == "0 of 2 done, 2 queued"
    terminal_shown.report("cell", "b", 0.0, "", "")
    assert terminal_shown.printed_lines() == ["cell: started"]
    for key in "ab":
        terminal_shown.finished("cell", key)
    first, second = terminal_shown.printed_lines()[-2:]
    assert first == "cell: done (1 of 2 done)"
    assert re.fullmatch(r"cell: done in [\d.]+ s \(2 of 2 done\)", second)


def test_a_stage_that_waits_prints_so_outside_a_terminal(terminal_shown, monkeypatch):
    monkeypatch.setattr(shown_on, "LINE_S", 0.0)
    for key in "ab":
        terminal_shown.queued("train", key)
    while not (lines := terminal_shown.printed_lines()):
        time.sleep(0.01)
    assert lines == ["train: queued until Ray has its CPUs, GPUs and memory"]


def test_a_job_whose_start_was_not_seen_has_no_time(terminal_shown):
    terminal_shown.queued("train", "a")
    terminal_shown.finished("train", "a")
    assert terminal_shown.printed_lines()[-1] == "train: done"


def test_a_cell_of_a_notebook_gets_lines(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert terminal().is_terminal
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not terminal().is_terminal
