"""Plans of graphs, cells that are equal, and the history of a run."""

from collections import Counter

from redun import Scheduler, task
from redun.backends.db import Job as JobRow
from redun.config import Config

from pipelines.config import EvaluateConfig
from pipelines.engine.graphs import Status, gather_cells, plan
from pipelines.engine.stages import Artefact, Source
from tests.pipelines.stages import CALLS

from .cases import double, graph, write


@task(namespace="ebflow", name="chosen", cache=False)
def chosen_task(data: Artefact) -> Artefact:
    (data.path / "value.txt").read_text()
    return double(None, data=data)


def test_a_plan_runs_nothing_and_writes_nothing(engine, home):
    def planned(graph, **options):
        found = plan(graph, **options).statuses
        return {name: status.text() for name, status in found.items()}

    neither = {"write": "ran", "double": "ran"}
    before = set(home.rglob("*"))
    assert planned(graph()) == neither and not CALLS and set(home.rglob("*")) == before
    doubled = engine().run(graph()).value["doubled"]
    assert planned(graph()) == {"write": "cached", "double": "cached"}
    assert planned(graph(), force=True) == planned(graph(samples=4)) == neither
    (doubled.path / "value.txt").unlink()
    assert planned(graph()) == {"write": "cached", "double": "ran"}
    assert CALLS == ["write", "double"]


def test_a_plan_counts_equal_cells_once(engine):
    engine().run(graph())
    found = plan(gather_cells(graph(n) for n in (3, 4, 4, 5))).statuses
    assert (found["write"], found["double"]) == (Status(2, 1), Status(2, 1))
    assert found["write"].text("run") == "2 run, 1 cached"
    assert (Status(ran=3).text(), Status(cached=2).text()) == ("3 ran", "2 cached")


def test_a_plan_ends_where_a_missing_artefact_decides(engine):
    found = plan(chosen_task(graph()["data"]))
    assert (found.value, found.statuses) == (None, {"write": Status(ran=1)})


def test_equal_cells_run_once(engine):
    """redun compares by pickles, in which equal sources at other places differ."""
    cells = [write(EvaluateConfig(samples=3), source=Source(place, "same")) for place in "ab"]
    assert engine(force=True).run(cells).statuses == {"write": Status(ran=1)}
    assert CALLS == ["write"]


def test_every_stage_that_ran_is_in_the_history_of_its_folder(engine, tmp_path):
    for force, count in (True, 1), (True, 2), (False, 2):
        engine(force=force).run(graph(), tmp_path)
        uri = f"sqlite:///{tmp_path}/.redun/redun.db"
        history = Scheduler(Config({"backend": {"db_uri": uri}}))
        history.load()
        jobs = Counter(job.task.fullname for job in history.backend.session.query(JobRow).all())
        stages = [f"tests.pipelines.stages.{name}" for name in ("write", "double")]
        assert [jobs[stage] for stage in stages] == [count, count]
