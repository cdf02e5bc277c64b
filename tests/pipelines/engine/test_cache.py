"""Stages in the store, stages that run again, and their logs."""

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from ebflow.errors import BadInput
from pipelines import store
from pipelines.cluster import environment
from pipelines.config import DensityConfig, EvaluateConfig
from pipelines.density import graph as density
from pipelines.density.graph import check as check_density
from pipelines.engine import graphs, keys, runner, stages
from pipelines.engine.graphs import Status, plan
from pipelines.engine.runner import Session
from pipelines.engine.stages import Artefact, Source, Stage, Work
from pipelines.errors import StageFailed
from pipelines.reporting.terminal import terminal
from pipelines.tracking.tracker import connect
from tests.pipelines.stages import CALLS, ERRORS

from .cases import NOTES, STAGES, Engine, Silent, double, graph, ran, run_of, write


def test_a_graph_runs_once_and_then_opens_nothing(engine):
    outcome = engine().run(graph())
    assert (outcome.value["doubled"].path / "value.txt").read_text() == "6"
    assert outcome.statuses == {"write": Status(ran=1), "double": Status(ran=1)}
    cached = Engine(lambda config: pytest.fail("opened"))
    assert cached.run(graph()).statuses == dict.fromkeys(("write", "double"), Status(cached=1))


def test_those_who_share_a_store_by_their_group_may_all_write(engine, home):
    before = os.umask(0o002)
    try:
        engine().run(graph())
    finally:
        os.umask(before)
    found = (path for path in home.rglob("*") if path.name != "mlflow.db")  # older than the mask
    modes = {path: path.stat().st_mode & 0o070 for path in found}
    expected = {path: 0o070 if path.is_dir() else 0o060 for path in modes}
    assert len(modes) > 10 and modes == expected


@pytest.mark.parametrize(("changes", "again"), [
    ({"samples": 4}, {"write", "double"}),
    ({"source": "other"}, {"write"}),
    ({"batch_size": 7}, set()),
])  # fmt: skip
def test_what_changes_numbers_runs_again_and_equal_results_stop_there(engine, changes, again):
    engine().run(graph())
    assert ran(engine, graph(**changes)) == again
    assert ran(engine, graph()) == set()


def test_a_deleted_artefact_is_made_again(engine):
    doubled = engine().run(graph()).value["doubled"]
    (doubled.path / "value.txt").unlink()
    assert ran(engine, graph()) == {"double"}
    assert (doubled.path / "value.txt").read_text() == "6"


def test_a_changed_artefact_is_made_again(engine):
    data = engine().run(graph()).value["data"]
    (data.path / "value.txt").write_text("5")
    assert ran(engine, graph()) == {"write"}
    assert (data.path / "value.txt").read_text() == "3"
    line = "found files that are missing or changed, expected what was stored; it is recomputed"
    assert NOTES == [("write", f"{data.path}: {line}")]
    assert ran(engine, graph()) == set() and len(NOTES) == 1


def test_what_is_forced_is_not_told_as_damaged(engine):
    data = engine().run(graph()).value["data"]
    (data.path / "value.txt").write_text("5")
    engine(force=True).run(graph())
    assert not NOTES


def test_a_run_whose_pipe_is_closed_is_ended(engine, monkeypatch):
    """Rich ends a process by SystemExit if it prints into a closed pipe."""

    def closed(*_, **__):
        raise SystemExit(1)

    monkeypatch.setattr(Silent, "console", SimpleNamespace(print=closed))
    with pytest.raises(KeyboardInterrupt):
        engine().run(graph())
    tracker = connect("tests", "key")
    assert len(tracker.runs("KILLED", {})) == 1 and not tracker.runs("RUNNING", {})


CHANGES = {
    "options": ({"samples": 4}, None, "runs again: its options changed (samples)"),
    "data": ({"source": "other"}, None, "runs again: its inputs changed (source)"),
    "code": ({}, None, "runs again: its code changed (0.2.0, 12ab34c → 0.3.0, 9f8e7d6)"),
    "unfinished": (
        {"samples": 4}, StageFailed("interrupted"), "runs again: its options changed (samples)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("changes, ending, reason", CHANGES.values(), ids=CHANGES)
def test_a_run_and_its_plan_say_why_a_stage_runs_again(
    engine, monkeypatch, changes, ending, reason
):
    version, ERRORS["write"] = "0.2.0, 12ab34c", ending
    monkeypatch.setattr(stages, "version_and_commit", lambda: version)
    with pytest.raises(StageFailed) if ending else nullcontext():
        engine().run(graph())
    ERRORS.clear()
    store.mark_used("write", "0" * 20, {"name": "of another version"})
    if not changes:
        version = "0.3.0, 9f8e7d6"
        monkeypatch.setattr(stages, "code_digest", lambda module: module)
        monkeypatch.setitem(vars(write), "version", write.module)
    tracked = run_of(graph=lambda config, inputs: graph(**changes))
    planned = runner.plan(tracked, None)
    assert planned["write"] == f"run: {reason.partition(': ')[2]}" and not NOTES
    refused = replace(tracked, resume=True)
    with pytest.raises(BadInput, match="--resume: found stage write: its"):
        runner._evaluated(Session(refused, "key", Silent()), None)
    with Session(tracked, "key", Silent()) as session:
        runner._evaluated(session, None)
    assert NOTES[0] == ("write", reason)


def test_an_interrupted_run_resumes_after_a_finished_one_with_other_options(engine):
    engine().run(graph(3))
    ERRORS["write"] = StageFailed("interrupted")
    with pytest.raises(StageFailed):
        engine().run(graph(4))
    ERRORS.clear()
    tracked = run_of(graph=lambda config, inputs: graph(4), resume=True)
    with Session(tracked, "key", Silent()) as session:
        outcome = runner._evaluated(session, None)
    assert outcome.statuses == {"write": Status(1), "double": Status(1)}


def test_force_runs_all_again(engine):
    engine().run(graph())
    CALLS.clear()
    assert engine(force=True).run(graph()).statuses == {"write": Status(1), "double": Status(1)}
    assert CALLS == ["write", "double"]


def test_what_is_forced_waits_for_another_process_that_runs_it(engine, home, monkeypatch):
    """The other process still needs its work."""
    work = Work(write, EvaluateConfig(samples=3), {"source": Source("here", "same")})
    work.folder.mkdir(parents=True)
    waits = threading.Event()
    monkeypatch.setattr(Silent, "note", lambda _, *note: (NOTES.append(note), waits.set()))
    with ThreadPoolExecutor(1) as pool:
        with store.lock(f"write-{work.key}"):
            forced = pool.submit(engine(force=True).run, graph())
            assert waits.wait(60) and work.folder.exists() and not CALLS
        forced.result()
    assert CALLS == ["write", "double"]
    assert NOTES == [("write", "another process runs it: waiting for it")]


def test_what_another_process_made_meanwhile_is_taken(engine, home, monkeypatch):
    """The stage looks again under its lock, after the driver has seen nothing."""
    engine().run(graph())
    CALLS.clear()
    find, asked = store.find, set()

    def late(stage, key):
        if key in asked:
            return find(stage, key)
        asked.add(key)
        return None

    monkeypatch.setattr(store, "find", late)
    engine().run(graph())
    assert not CALLS


def test_what_another_store_made_is_found_in_the_bucket_that_they_share(
    engine, monkeypatch, tmp_path
):
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/shared")
    monkeypatch.setattr(environment, "embedded", lambda: True)
    engine().run(graph())
    monkeypatch.setenv("EBFLOW_HOME", str(tmp_path / "other"))
    cached = dict.fromkeys(STAGES, Status(cached=1))
    assert plan(graph()).statuses == cached
    again = Engine(lambda config: pytest.fail("opened")).run(graph())
    assert again.statuses == cached
    assert (again.value["doubled"].path / "value.txt").read_text() == "6"


def test_an_artefact_in_a_list_counts_by_its_content(engine):
    """Not by its MLflow run, which is another whenever it is recomputed."""
    config = EvaluateConfig(samples=3)
    keys = set()
    for run_id in ("one", "other"):
        artefact = Artefact(stage="write", key="key", digest="digest", size=1, run_id=run_id)
        keys.add(Work(double, config, {"data": [artefact]}).key)
    assert len(keys) == 1
    assert Work(double, config, {"other": [artefact]}).key not in keys


def test_stages_of_one_name_are_told_apart(engine):
    """redun has one registry for all graphs of a process."""
    other = Stage("tests.pipelines.other_stages.write", executor="driver")
    own = write(EvaluateConfig(samples=3), source=Source("here", "x"))
    found = engine().run([own, other(None)])
    texts = [(artefact.path / "value.txt").read_text() for artefact in found.value]
    assert texts == ["3", "another"]


def test_code_that_is_edited_during_a_run_is_not_cached_under_the_old_key(
    engine, home, tmp_path, monkeypatch
):
    package = tmp_path / "edited"
    package.mkdir()
    (package / "__init__.py").write_text("")
    source = (
        "from pathlib import Path\n\n\ndef edits(config, *, run):\n"
        "    path = Path(__file__)\n    path.write_text(path.read_text() + 'X = 1\\n')\n"
    )
    (package / "edits.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(keys, "OURS", ("edited",))
    with pytest.raises(StageFailed, match="stage edits: found other code than when the run start"):
        engine().run(Stage("edited.edits", executor="driver")(None))
    assert not (home / "artefacts" / "edits").exists()


def test_data_that_change_before_they_are_prepared_are_refused(engine, tabular_file, tmp_path):
    file = tmp_path / "rows.parquet"
    table = pq.read_table(tabular_file)
    pq.write_table(table, file)
    config = DensityConfig(data={"source": str(file)})
    source = check_density(config)
    pq.write_table(table.slice(1), file)
    with pytest.raises(BadInput, match="rows.parquet: found other data than when the run start"):
        engine().run(density.prepare(config.data, source=source))
    assert store.find("prepare", "*") is None


def test_artefacts_move_with_their_store(engine, home, monkeypatch, tmp_path):
    engine().run(graph())
    home.rename(tmp_path / "moved")
    monkeypatch.setenv("EBFLOW_HOME", str(tmp_path / "moved"))
    assert ran(engine, graph()) == set()


def test_each_stage_that_ran_is_a_child_run(engine):
    engine().run(graph())
    tracker = connect("tests", "key")
    runs = tracker.client.search_runs([tracker.experiment])
    children = {r.info.run_name: r for r in runs if "mlflow.parentRunId" in r.data.tags}
    assert set(children) == {"write", "double"}
    assert {child.info.status for child in children.values()} == {"FINISHED"}
    key = children["write"].data.tags["ebflow.key"]
    assert store.find("write", key).run_id == children["write"].info.run_id
    note = children["write"].data.tags["mlflow.note.content"]
    assert note.startswith("Stage `write`. Of a test.\n\n")
    assert note.endswith("\n\nTo reproduce it:\n\n```sh\nebflow run tests\n```")


def test_bad_input_leaves_what_another_run_works_on(home, monkeypatch):
    def evaluate(*_, **__):
        store.work("train", "of another run").mkdir(parents=True)
        raise BadInput("x")

    monkeypatch.setattr(graphs, "evaluate", evaluate)
    monkeypatch.setattr(runner, "log_to", lambda _: None)
    with pytest.raises(BadInput):
        runner.execute(run_of(graph=lambda *_: None), None, terminal())
    assert store.work("train", "of another run").is_dir()


def test_runs_that_end_at_once_leave_their_results_one_after_another(home, monkeypatch):
    inside = []

    def publish(session, outcome):
        inside.append("in")
        time.sleep(0.3)
        inside.append("out")
        return {}

    monkeypatch.setattr(runner, "publish", publish)
    monkeypatch.setattr(runner, "_evaluated", lambda *_: None)
    monkeypatch.setattr(runner, "log_to", lambda _: None)
    Path("results/.draft-of-one-that-was-killed").mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(runner.execute, run_of(graph=lambda *_: None, name=name), None, terminal())
            for name in ("one", "other")
        ]
    assert [one.result() for one in done] == [{}, {}] and inside == ["in", "out"] * 2
    assert not [*Path("results").iterdir()]


def test_a_kill_while_results_are_moved_leaves_a_folder_that_a_run_may_replace(
    home, tmp_path, monkeypatch
):
    (tmp_path / "draft" / "checkpoint").mkdir(parents=True)
    (tmp_path / "draft" / "summary.json").write_text('{"mlflow_run_id": "1"}')
    (output := tmp_path / "output").mkdir()

    def killed(path, place):
        shutil.move(path, place)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        runner._moved(tmp_path / "draft", output)
    runner._check_replaceable(output)
