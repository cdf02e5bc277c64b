"""Stages that fail, and services that are away."""

import pytest
from redun import task
from redun.scheduler import catch_all

from ebflow.errors import BadInput, NonFinite
from pipelines import store
from pipelines.config import EvaluateConfig
from pipelines.engine import runner
from pipelines.engine.graphs import Status, gather_cells
from pipelines.engine.stages import Source, Stage
from pipelines.errors import StageFailed
from tests.pipelines.stages import ERRORS

from .cases import Engine, Silent, graph, mend, ran, write


def test_bad_input_that_a_stage_finds_leaves_no_work_and_no_history(engine, home, tmp_path):
    ERRORS["write"] = BadInput("x")
    with pytest.raises(BadInput):
        engine().run(graph(), tmp_path / "output")
    assert not [*(home / "work" / "write").glob("*")]
    assert not (tmp_path / "output").exists()


def test_a_stage_that_fails_leaves_nothing_on_a_node_that_has_a_bucket(
    engine, home, monkeypatch, tmp_path
):
    """It may be tried again on another node, and copies its checkpoints from the bucket."""
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/shared")
    ERRORS["write"] = OSError("disk")
    with pytest.raises(StageFailed, match="disk"):
        engine().run(graph())
    assert not list((home / "work").glob("write/*"))


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

    fan = catch_all([graph()["data"], mend(None)], Exception, recover)
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


def test_a_store_that_does_not_answer_the_driver_is_asked_by_the_stage(engine, monkeypatch):
    find, asked = store.find, []

    def away(stage, key):
        asked.append(key)
        if asked.count(key) == 1:
            raise OSError(111, "refused")
        return find(stage, key)

    monkeypatch.setattr(store, "find", away)
    assert engine().run(graph()).statuses["write"] == Status(ran=1)


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

    monkeypatch.setattr(runner, "start", fail)
    with pytest.raises(StageFailed, match="Ray cannot be reached"):
        engine().run(Stage("tests.pipelines.stages.mend")(None))


def test_a_tracking_server_that_is_away_ends_the_run_at_its_first_stage(engine):
    """A study would ask it again for each of its cells."""
    asked = []

    def away(config):
        asked.append(1)
        raise ConnectionError("no answer")

    source = Source("a", "b")
    cells = gather_cells(write(EvaluateConfig(samples=n), source=source) for n in (1, 2, 3))
    with pytest.raises(StageFailed, match="no answer"):
        Engine(away).run(cells)
    assert asked == [1]
