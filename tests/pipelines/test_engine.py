"""The engine on small stages in this process: what is remembered, what runs again, what is told.

No Ray: the stages run in the driver.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import ray
import torch
from redun import Scheduler, task
from redun.backends.db import Job as JobRow
from redun.config import Config
from redun.scheduler import catch_all

from ebflow.errors import BadInput, NonFinite
from pipelines import store
from pipelines.cluster import connection, environment
from pipelines.cluster.connection import DRIVER
from pipelines.config import (
    ClusterConfig,
    DensityConfig,
    EvaluateConfig,
    PreprocessFit,
    TrainConfig,
    Training,
)
from pipelines.density import graph as density
from pipelines.density.graph import check as check_density
from pipelines.engine import graphs, keys, runner, session
from pipelines.engine.graphs import Status, evaluate, gather_cells, plan
from pipelines.engine.pipeline import Description, Pipeline, Retries, Run
from pipelines.engine.session import Session, ray_options
from pipelines.engine.stages import WHOLE_NODE, Artefact, Source, Stage, Work, needs_from_config
from pipelines.errors import StageFailed
from pipelines.interruption import interruptible
from pipelines.paper import graph as paper
from pipelines.paper.config import StepsConfig
from pipelines.reporting.terminal import terminal
from pipelines.sample_complexity import graph as sample_complexity
from pipelines.tracking.tracker import connect
from tests.pipelines.stages import CALLS, ERRORS
from tuning import graph as search

redun_namespace = "ebflow"
STAGES = ("write", "double")

RETRIED, NOTES = [], []
NONE = Retries(0)

write, double, mend, threads = (
    Stage(f"tests.pipelines.stages.{name}", executor="driver")
    for name in ("write", "double", "mend", "threads")
)


def graph(draws=3, source="same", **unkeyed):
    data = write(EvaluateConfig(draws=draws, **unkeyed), [Source("here", source)])
    return data, double(None, [data])


@pytest.fixture(autouse=True)
def fresh():
    for kept in (CALLS, ERRORS, RETRIED, NOTES):
        kept.clear()


class Silent:
    def queued(self, stage, key):
        pass

    def started(self, stage, key):
        pass

    def finished(self, stage, key):
        pass

    def report(self, stage, key, share, text, note=""):
        """The cause of a failure is gone once it has been told twice."""
        error, again, pause = note.partition("; tried again in ")
        if again:
            RETRIED.append((stage, error, float(pause.removesuffix(" s"))))
        if len(RETRIED) == 2:
            ERRORS.clear()

    def note(self, stage, text):
        NOTES.append((stage, text))

    console = SimpleNamespace(print=lambda *_, **__: None)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """An empty database of redun, which takes longer to make than most stages here."""
    folder = tmp_path_factory.mktemp("records")
    graphs._scheduler(folder / "redun.db", graphs.StoreExecutor(None, force=False))
    return folder


def run_of(describe=lambda config: Description(("parent",), "", {}), graph=None, **options):
    pipeline = Pipeline("tests", graph=graph, describe=describe)
    options = {"name": "tests", "output": Path("results"), **options}
    return Run(pipeline, config=None, command="ebflow run tests", **options)


class Engine:
    """Evaluates graphs as a run does."""

    def __init__(self, *describe, **options):
        self.tracked = run_of(*describe, **options)

    def run(self, graph, output=None):
        with Session(self.tracked, "key", Silent()) as started:
            return evaluate(graph, started.start, force=self.tracked.force, output=output)


@pytest.fixture
def engine(tracking_home, without_ray, records, monkeypatch):
    @contextmanager
    def folder(prefix):
        with tempfile.TemporaryDirectory(prefix=prefix) as made:
            shutil.copytree(records, made, dirs_exist_ok=True)
            yield made

    monkeypatch.setattr(graphs, "tempfile", SimpleNamespace(TemporaryDirectory=folder))

    def make(force=False, retries=NONE):
        return Engine(force=force, retries=retries)

    return make


def ran(engine, expression):
    """Runs it; returns which stages ran."""
    CALLS.clear()
    outcome = engine().run(expression)
    assert sorted(CALLS) == sorted(
        stage for stage, status in outcome.statuses.items() if status.ran
    )
    return set(CALLS)


def test_a_graph_runs_once(engine):
    outcome = engine().run(graph())
    assert (outcome.value[1].path / "value.txt").read_text() == "6"
    assert outcome.statuses == {"write": Status(ran=1), "double": Status(ran=1)}
    assert ran(engine, graph()) == set()


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


def test_a_cached_graph_opens_nothing(engine, home):
    engine().run(graph())
    cached = Engine(lambda config: pytest.fail("opened"))
    assert cached.run(graph()).statuses == dict.fromkeys(("write", "double"), Status(cached=1))


def test_another_value_runs_again(engine):
    engine().run(graph())
    assert ran(engine, graph(draws=4)) == {"write", "double"}
    assert ran(engine, graph()) == set()


def test_other_data_run_again_and_equal_results_stop_there(engine):
    engine().run(graph())
    assert ran(engine, graph(source="other")) == {"write"}


def test_what_changes_no_number_runs_nothing(engine):
    engine().run(graph())
    assert ran(engine, graph(batch_size=7)) == set()


def test_a_deleted_artefact_is_made_again(engine):
    data, doubled = engine().run(graph()).value
    (doubled.path / "value.txt").unlink()
    assert ran(engine, graph()) == {"double"}
    assert (doubled.path / "value.txt").read_text() == "6"


def test_a_changed_artefact_is_made_again(engine):
    data, doubled = engine().run(graph()).value
    (data.path / "value.txt").write_text("5")
    assert ran(engine, graph()) == {"write"}
    assert (data.path / "value.txt").read_text() == "3"
    line = "found files that are missing or changed, expected what was stored; it is recomputed"
    assert NOTES == [("write", f"{data.path}: {line}")]
    assert ran(engine, graph()) == set() and len(NOTES) == 1


def test_what_is_forced_is_not_told_as_damaged(engine):
    data, _ = engine().run(graph()).value
    (data.path / "value.txt").write_text("5")
    engine(force=True).run(graph())
    assert not NOTES


def test_a_failure_that_may_pass_is_tried_again(engine):
    ERRORS["write"] = OSError(28, "No space left on device")
    line = "OSError: [Errno 28] No space left on device"
    with pytest.raises(StageFailed, match=re.escape(line)):
        engine(retries=Retries(1, 0.01)).run(graph())
    assert CALLS == ["write"] * 2 and RETRIED == [("write", line, 0.01)]


def test_a_stage_may_succeed_the_third_time_and_the_log_has_both_failures(engine, caplog):
    ERRORS["write"] = OSError()
    assert engine(retries=Retries(2, 0.01)).run(graph()).statuses["write"] == Status(ran=1)
    assert CALLS == ["write", "write", "write", "double"]
    assert [pause for *_, pause in RETRIED] == [0.01, 0.02]
    logged = [record for record in caplog.records if record.name == "ebflow.engine"]
    assert [record.exc_info[0] for record in logged] == [OSError, OSError]


def test_what_an_interruption_breaks_is_not_tried_again(engine, monkeypatch):
    ERRORS["write"] = OSError()
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            with pytest.raises(StageFailed):
                engine(retries=Retries(2, 0.01)).run(graph())
    assert CALLS == ["write"] and not RETRIED


@pytest.mark.parametrize("error", [BadInput("x"), NonFinite("x"), ZeroDivisionError()])
def test_what_will_not_pass_is_not_tried_again(engine, error):
    ERRORS["write"] = error
    with pytest.raises((BadInput, StageFailed)):
        engine(retries=Retries(2, 0.01)).run(graph())
    assert CALLS == ["write"] and not RETRIED


def test_bad_input_that_a_stage_finds_leaves_no_folder_of_work(engine, home):
    ERRORS["write"] = BadInput("x")
    with pytest.raises(BadInput):
        engine().run(graph())
    assert not [*(home / "work" / "write").glob("*")]


def test_force_runs_all_again(engine):
    engine().run(graph())
    CALLS.clear()
    assert engine(force=True).run(graph()).statuses == {"write": Status(1), "double": Status(1)}
    assert CALLS == ["write", "double"]


def test_what_is_forced_begins_anew_once_and_goes_on_when_it_is_tried_again(engine, monkeypatch):
    engine().run(graph())
    forgotten, forget = [], store.forget
    monkeypatch.setattr(store, "forget", lambda path: forgotten.append(path) or forget(path))
    ERRORS["write"] = OSError()
    engine(force=True, retries=Retries(2, 0.01)).run(graph())
    assert [path.parent.name for path in forgotten] == ["write"] * 2 + ["double"] * 2
    assert CALLS == ["write", "double", "write", "write", "write", "double"]


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
    assert (again.value[1].path / "value.txt").read_text() == "6"


def test_a_stage_that_fails_leaves_nothing_on_a_node_that_has_a_bucket(
    engine, home, monkeypatch, tmp_path
):
    """It may be tried again on another node, and copies its checkpoints from the bucket."""
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/shared")
    ERRORS["write"] = OSError("disk")
    with pytest.raises(StageFailed, match="disk"):
        engine().run(graph())
    assert not list((home / "work").glob("write/*"))


def test_a_plan_runs_nothing_and_writes_nothing(engine, home):
    def planned(graph, **options):
        found = plan(graph, **options).statuses
        return {name: status.text() for name, status in found.items()}

    neither = {"write": "ran", "double": "ran"}
    before = set(home.rglob("*"))
    assert planned(graph()) == neither and not CALLS and set(home.rglob("*")) == before
    doubled = engine().run(graph()).value[1]
    assert planned(graph()) == {"write": "cached", "double": "cached"}
    assert planned(graph(), force=True) == planned(graph(draws=4)) == neither
    (doubled.path / "value.txt").unlink()
    assert planned(graph()) == {"write": "cached", "double": "ran"}
    assert CALLS == ["write", "double"]


def test_a_plan_counts_equal_cells_once(engine):
    engine().run(graph())
    found = plan(gather_cells(graph(n) for n in (3, 4, 4, 5))).statuses
    assert (found["write"], found["double"]) == (Status(2, 1), Status(2, 1))


def test_a_plan_ends_where_a_missing_artefact_decides(engine):
    found = plan(chosen_task(graph()[0]))
    assert (found.value, found.statuses) == (None, {"write": Status(ran=1)})


def test_equal_cells_run_once(engine):
    """redun compares by pickles, in which equal sources at other places differ."""
    cells = [write(EvaluateConfig(draws=3), [Source(place, "same")]) for place in "ab"]
    assert engine(force=True).run(cells).statuses == {"write": Status(ran=1)}
    assert CALLS == ["write"]


def test_a_run_leaves_its_history(engine, tmp_path):
    for output in (tmp_path / "one", tmp_path / "other"):
        engine().run(graph(), output)
        history = Scheduler(Config({"backend": {"db_uri": f"sqlite:///{output}/.redun/redun.db"}}))
        history.load()
        jobs = history.backend.session.query(JobRow).all()
        assert {job.task.fullname for job in jobs} >= {
            "tests.pipelines.stages.write", "tests.pipelines.stages.double"
        }  # fmt: skip


def test_bad_input_leaves_no_history(engine, tmp_path):
    ERRORS["write"] = BadInput("x")
    with pytest.raises(BadInput):
        engine().run(graph(), tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_stages_of_one_name_are_told_apart(engine):
    """redun has one registry for all graphs of a process."""
    other = Stage("tests.pipelines.other_stages.write", executor="driver")
    found = engine().run([write(EvaluateConfig(draws=3), [Source("here", "x")]), other(None)])
    texts = [(artefact.path / "value.txt").read_text() for artefact in found.value]
    assert texts == ["3", "another"]


def test_an_artefact_in_a_tuple_counts_by_its_content(engine):
    """Not by its MLflow run, which is another whenever it is recomputed."""
    config = EvaluateConfig(draws=3)
    keys = set()
    for run_id in ("one", "other"):
        artefact = Artefact(stage="write", key="key", digest="digest", size=1, run_id=run_id)
        keys.add(Work(double, config, [(artefact,)]).key)
    assert len(keys) == 1


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


@task(namespace="ebflow", name="chosen", cache=False)
def chosen_task(data: Artefact) -> Artefact:
    (data.path / "value.txt").read_text()
    return double(None, [data])


def test_a_failed_stage_keeps_its_work_and_leaves_no_artefact(engine, home):
    ERRORS["write"] = ValueError("too\nbad")
    with pytest.raises(StageFailed, match="^ValueError: too bad$"):
        engine().run(graph())
    (work,) = (home / "work" / "write").iterdir()
    assert {path.name for path in work.iterdir()} == {"half"}
    assert not (home / "artefacts").exists()
    ERRORS.clear()
    assert ran(engine, graph()) == {"write", "double"}
    assert not list((home / "work" / "write").iterdir())


TOLD = {BadInput("no"): BadInput, NonFinite("step 3: inf"): StageFailed, KeyboardInterrupt(): None}


@pytest.mark.parametrize("error, expected", TOLD.items(), ids=lambda e: repr(e)[:20])
def test_how_a_stage_ended_is_told_as_it_was(engine, error, expected):
    ERRORS["write"] = error
    with pytest.raises(expected or KeyboardInterrupt) as caught:
        engine().run(graph())
    assert str(error) in str(caught.value)


def test_healthy_siblings_of_a_failed_stage_finish(engine):
    ERRORS["write"] = ValueError("bad")

    @task(namespace="ebflow", name="recover", cache=False)
    def recover(results):
        return "recovered"

    fan = catch_all([graph()[0], mend(None)], Exception, recover)
    with_sibling = engine().run(fan)
    assert with_sibling.value == "recovered"
    assert with_sibling.statuses["mend"].ran


@pytest.mark.parametrize("error", [NonFinite("step 3: inf"), ValueError("bad")])
def test_a_cell_that_diverged_is_told_and_any_other_failure_is_one(engine, error):
    ERRORS["write"] = error
    if isinstance(error, NonFinite):
        assert engine().run(gather_cells([graph()])).value == ["step 3: inf"]
    else:
        with pytest.raises(StageFailed, match="1 of 1 cells failed, the first: .*bad"):
            engine().run(gather_cells([graph()]))


def test_what_is_forced_waits_for_another_process_that_runs_it(engine, home, monkeypatch):
    """That one still needs its work."""
    work = Work(write, EvaluateConfig(draws=3), [Source("here", "same")])
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


def test_runs_that_end_at_once_leave_their_results_one_after_another(home, monkeypatch):
    inside = []

    def publish(session, outcome):
        inside.append("in")
        time.sleep(0.3)
        inside.append("out")
        return {}

    monkeypatch.setattr(runner, "publish", publish)
    monkeypatch.setattr(graphs, "evaluate", lambda *_, **__: None)
    monkeypatch.setattr(runner, "log_to", lambda _: None)
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(runner.execute, run_of(graph=lambda *_: None, name=name), None, terminal())
            for name in ("one", "other")
        ]
    assert [one.result() for one in done] == [{}, {}] and inside == ["in", "out"] * 2


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


def test_artefacts_move_with_their_store(engine, home, monkeypatch, tmp_path):
    engine().run(graph())
    home.rename(tmp_path / "moved")
    monkeypatch.setenv("EBFLOW_HOME", str(tmp_path / "moved"))
    assert SimpleNamespace(ran=ran(engine, graph())).ran == set()


LEFT = "left"


@pytest.fixture
def rays(monkeypatch):
    """What is done with Ray, and the thread that does it."""
    session.RAY.submit(int).result()  # a run before this one may still start Ray, or leave it
    done = []

    def start(show):
        done.append(("start", threading.current_thread()))

    monkeypatch.setattr(session, "start", start)
    monkeypatch.setattr(
        session, "leave", lambda _: done.append((LEFT, threading.current_thread()))
    )
    return done


class Opened(Session):
    """A session with Ray, and with a run in MLflow that takes no time but ``meanwhile``'s."""

    def __init__(self, meanwhile=lambda: None):
        super().__init__(run_of(), "key", Silent())
        self.meanwhile, self.tracker = meanwhile, None
        assert self.context.tracker is None

    def _track(self):
        self.meanwhile()
        return SimpleNamespace(id="")


def test_one_thread_starts_ray_and_leaves_it(rays):
    """Its processes end with the thread that started them, and a stage's thread ends before."""
    with Opened():
        pass
    session.RAY.submit(int).result()
    assert [what for what, _ in rays] == ["start", LEFT]
    assert len({thread for _, thread in rays}) == 1 and rays[0][1].is_alive()


def test_ray_is_left_where_a_second_ctrl_c_breaks_off_the_cancelling(rays, monkeypatch):
    """Else the thread that holds it keeps the process from ending."""

    def interrupted(running):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "cancel", interrupted)
    with pytest.raises(KeyboardInterrupt), Opened():
        pass
    session.RAY.submit(int).result()
    assert rays[-1][0] == LEFT


LEAVING = """
import time
from pipelines.cluster import environment
environment.prepare()
import ray
from pipelines.engine import session
executor = session.Session(None, "key", None)
executor.connection = session.RAY.submit(session.start)
executor.connection.result()
executor.running += map(ray.put, range(1000))
kept = list(executor.running)
executor.leave()
del executor
left = session.RAY.submit(int)
while not left.done():
    kept and kept.pop()
    time.sleep(0.001)
print("left")
"""


IN_CYCLES = (
    LEAVING.replace("kept = list(executor.running)", "kept = list(map(ray.put, range(1000)))")
    .replace(
        "kept and kept.pop()",
        "cycle = [kept.pop()] if kept else []; cycle.append(cycle); [[] for _ in range(20)]",
    )
    .replace("import time", "import gc, time; gc.set_threshold(10)")
)
"""Exceptions hold references in cycles, which the collector drops at any time."""


@pytest.mark.system
@pytest.mark.parametrize("code", [LEAVING, IN_CYCLES], ids=["counted", "in cycles"])
def test_references_that_are_dropped_while_ray_is_left_end_no_process(tmp_path, code):
    """Ray's core is gone before its Python side knows: what asks it then is ended, with code 1."""
    place = {**os.environ, "EBFLOW_HOME": str(tmp_path / "store")}
    done = subprocess.run([sys.executable, "-c", code], env=place, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


def test_a_store_that_does_not_answer_the_driver_is_asked_by_the_stage(engine, monkeypatch):
    find, asked = store.find, []

    def away(stage, key):
        asked.append(key)
        if asked.count(key) == 1:
            raise OSError(111, "refused")
        return find(stage, key)

    monkeypatch.setattr(store, "find", away)
    assert engine(retries=Retries(0)).run(graph()).statuses["write"] == Status(ran=1)


@pytest.mark.parametrize(
    "error", [UnicodeEncodeError("ascii", "✓", 0, 1, "not in range"), SystemExit(1)], ids=repr
)
def test_a_display_that_fails_ends_no_stage(engine, monkeypatch, error):
    """A pipe that is closed makes rich raise SystemExit."""

    def fail(*_):
        raise error

    monkeypatch.setattr(Silent, "finished", fail)
    assert engine().run(graph()).statuses["double"] == Status(ran=1)


def test_a_start_of_ray_that_fails_ends_the_run(engine, monkeypatch):
    def fail(show):
        raise StageFailed("Ray cannot be reached")

    monkeypatch.setattr(session, "start", fail)
    with pytest.raises(StageFailed, match="Ray cannot be reached"):
        engine(retries=Retries(2, 60.0)).run(Stage("tests.pipelines.stages.mend")(None))


def test_a_tracking_server_that_is_away_ends_the_run_at_its_first_stage(engine):
    """A study would ask it again for each of its cells."""
    asked = []

    def away(config):
        asked.append(1)
        raise ConnectionError("no answer")

    cells = gather_cells([write(EvaluateConfig(draws=n), [Source("a", "b")])] for n in (1, 2, 3))
    with pytest.raises(StageFailed, match="no answer"):
        Engine(away).run(cells)
    assert asked == [1]


class Fails:
    """The errors of a stage: one at its first attempt, of which each notes its thread."""

    def __init__(self):
        self.threads = []

    def get(self, name):
        self.threads.append(threading.current_thread())
        return OSError(28, "full") if len(self.threads) == 1 else None


def test_every_attempt_of_a_stage_in_the_driver_is_in_the_thread_that_ctrl_c_interrupts(
    engine, monkeypatch
):
    errors = Fails()
    monkeypatch.setattr("tests.pipelines.stages.write.ERRORS", errors)
    engine(retries=Retries(1, 0.01)).run(graph())
    assert errors.threads == [threading.main_thread()] * 2


def test_ray_starts_beside_what_the_driver_does_before_the_first_stage(monkeypatch):
    began = threading.Event()
    monkeypatch.setattr(session, "start", lambda show: began.set())
    monkeypatch.setattr(session, "leave", lambda _: None)
    with Opened(lambda: not began.wait(10)):
        pass


def test_a_process_leaves_ray_before_it_starts_it_again(monkeypatch):
    """Leaving goes on beside what is done after the last stage."""
    ends = threading.Event()
    monkeypatch.setattr(session, "start", lambda show: "Ray")
    monkeypatch.setattr(session, "leave", lambda _: ends.wait(10))
    with Opened():
        pass
    with Opened() as second:
        with pytest.raises(TimeoutError):
            second.connection.result(timeout=0.2)
        ends.set()
        assert second.connection.result(timeout=10) == "Ray"


ONE = {"CPU": 1}
NEEDS = {
    "undeclared": (density.report, DensityConfig(), ONE),
    "a cell": (sample_complexity.learn, None, ONE),
    "threads": (density.preprocess, PreprocessFit(threads=3), {"CPU": 3}),
    "a training": (density.train, Training(train=TrainConfig(threads=2)), {"CPU": 2}),
    "workers": (density.train, Training(cluster=ClusterConfig(workers=2)), DRIVER),
    "a worker with a GPU": (density.train, Training(cluster=ClusterConfig(gpu=True)), DRIVER),
    "a search": (search.search, None, {"CPU": 0}),
    "a benchmark": (paper.MEASURES[StepsConfig], None, WHOLE_NODE),
}


@pytest.mark.parametrize("stage, config, needs", NEEDS.values(), ids=NEEDS)
def test_a_stage_needs_what_it_declares(stage, config, needs, monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: True)
    assert Work(stage, config).needs == needs


def connected(show, folder):
    listener = SimpleNamespace(join=lambda: None)
    return SimpleNamespace(stopped=threading.Event(), listener=listener, folder=folder)


def test_workers_find_the_store_below_the_current_folder(home, monkeypatch):
    """Ray's workers have folders of their own, from which a relative path leads elsewhere."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("EBFLOW_HOME", "")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(connection, "Connection", connected)
    connection.leave(connection.start())
    assert os.environ["EBFLOW_HOME"] == str(Path.cwd() / "runs" / ".store")


def test_ray_starts_again_where_a_busy_machine_was_too_slow(home, monkeypatch):
    calls = []

    def init(**options):
        calls.append(options["_temp_dir"])
        if len(calls) == 1:
            raise Exception("The current node timed out during startup")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(connection, "Connection", connected)
    connection.leave(connection.start())
    assert len(set(calls)) == 2 and not any(Path(folder).exists() for folder in calls)


def test_a_clusters_trainings_are_launched(monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: False)
    assert Work(density.train, Training()).needs == DRIVER


@pytest.mark.parametrize("alone", [True, False])
def test_the_memory_of_a_trial_is_reserved_where_others_share_a_node(alone, monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: alone)
    trial = Training(cluster=ClusterConfig(memory=2))
    assert needs_from_config(trial) == {"CPU": 1} | ({} if alone else {"memory": 2 * 2**30})


def options(needs):
    return ray_options(Work(Stage("any", needs=needs), None))


@pytest.mark.parametrize("alone", [True, False])
def test_a_machine_that_cannot_grow_is_asked_for_no_more_than_it_has(alone, monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: alone)
    monkeypatch.setattr(session, "largest_node", lambda: 2.0)
    given = [options(needs)["num_cpus"] for needs in (ONE, {"CPU": 3}, DRIVER, WHOLE_NODE)]
    assert given == [1, 2 if alone else 3, 0, 2]
    assert options({"CPU": 1, "GPU": 2})["num_gpus"] == 2


def test_a_benchmark_has_a_node_alone_where_none_is_up_yet(monkeypatch):
    """The head of a cluster that is scaled to zero has no CPUs; one CPU of a node is not all."""
    nodes = [{"Alive": True, "Resources": {"memory": 1.0}}]
    worker = {"Alive": True, "Resources": {"CPU": 16.0}}
    monkeypatch.setattr(environment, "embedded", lambda: False)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get", lambda _: nodes.append(worker))
    wake = SimpleNamespace(remote=lambda: None)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda function: wake)
    assert options(WHOLE_NODE)["num_cpus"] == 16


def test_a_stage_has_the_threads_that_it_declares(engine):
    """Ray reuses a process, and torch keeps the number of threads of the stage before."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = engine().run([threads(None)]).value[0]
    finally:
        torch.set_num_threads(before)
    assert (found.path / "value.txt").read_text() == "1"


def test_data_that_change_before_they_are_prepared_are_refused(engine, tabular_file, tmp_path):
    file = tmp_path / "rows.parquet"
    table = pq.read_table(tabular_file)
    pq.write_table(table, file)
    config = DensityConfig(data={"source": str(file)})
    source = check_density(config)
    pq.write_table(table.slice(1), file)
    with pytest.raises(BadInput, match="rows.parquet: found other data than when the run start"):
        engine().run(density.prepare(config.data, [source]))
    assert store.find("prepare", "*") is None


def test_stages_share_one_remote_function(monkeypatch):
    """Ray exports each remote function to all nodes, and warns at the hundredth."""
    made = []
    monkeypatch.setattr(ray, "remote", lambda function: made.append(function) or made)
    session._remote_call.cache_clear()
    assert session._remote_call() is session._remote_call()
    session._remote_call.cache_clear()
    assert len(made) == 1
