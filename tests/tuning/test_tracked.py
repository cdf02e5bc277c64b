"""The runs of trials, on a real embedded store: from files alone, through a store that is away."""

import json
import time
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from pipelines.config import Training
from pipelines.data.prepare import prepare
from pipelines.tracking import metrics_log
from pipelines.tracking.run import StageRun
from pipelines.tracking.tracker import connect
from tuning import records
from tuning.density.config import DensityTune
from tuning.problems import problem
from tuning.records import Record
from tuning.stages import search as stage
from tuning.tracked import TrialRuns

DENSITY = problem(DensityTune())
CONFIG = Training().model_dump(mode="json")


@pytest.fixture
def run(tracking_home):
    tracker = connect("tests", "key")
    return StageRun(tracker.client, tracker.start("search", {}))


def tell(root, number, *steps, **fields):
    records.write(root, Record(number, CONFIG, **fields))
    metrics_log.append(
        records.folder(root, number) / metrics_log.FILE,
        [{"kind": "validate", "step": step, "share": 0.5, "time": time.time(),
          "metrics": {"val/nll": 10.0 - step}, "note": ""} for step in steps],
    )  # fmt: skip


def children(run):
    found = run.client.search_runs([run.client.get_run(run.id).info.experiment_id])
    own = [one for one in found if one.data.tags.get("mlflow.parentRunId") == run.id]
    return {int(one.data.tags["ebflow.trial"]): one for one in own}


def curve(run, child):
    return [m.step for m in run.client.get_metric_history(child.info.run_id, "val/nll")]


def test_a_search_whose_trials_have_ended_needs_no_node(run, tmp_path, monkeypatch):
    """A cluster may be back at none when the search goes on: no Ray is asked here."""

    def ended(searched, inputs, work, reporter):
        tell(work / records.TRIALS, 0, 1, state="finished", seconds=6.0)
        return records.read(work / records.TRIALS)

    monkeypatch.setattr(stage, "run_trials", ended)
    prepare("digits", tmp_path / "data", rows=110, validation=20, test=20)
    run.output, run.work = tmp_path / "output", tmp_path / "work"
    run.reporter = None
    run.output.mkdir()
    run.work.mkdir()
    stage.search(DensityTune(), [tmp_path / "data"], run=run)
    found = json.loads((tmp_path / "output" / "search.json").read_text())
    assert found["cpus_busy"] * found["seconds"] == pytest.approx(6.0)


ENDS = {"finished": "FINISHED", "pruned": "KILLED", "stopped": "KILLED", "failed": "FAILED"}


def test_who_is_killed_while_a_run_is_noted_can_go_on(run, tmp_path, monkeypatch):
    tell(tmp_path, 0, 1)
    with monkeypatch.context() as killed:
        killed.setattr(Path, "write_text", torn)
        with pytest.raises(KeyboardInterrupt):
            TrialRuns(tmp_path, DENSITY, run).send()
    TrialRuns(tmp_path, DENSITY, run).send()


def torn(path, text):
    """Writes a part of a text, and is killed."""
    path.write_bytes(b"")
    raise KeyboardInterrupt


@pytest.mark.parametrize("state, status", ENDS.items(), ids=ENDS)
def test_a_trial_has_one_run_with_its_curve_and_its_true_end(run, tmp_path, state, status):
    runs = TrialRuns(tmp_path, DENSITY, run)
    tell(tmp_path, 7, 0, 1)
    runs.send()
    assert children(run)[7].info.status == "RUNNING"
    tell(tmp_path, 7, 2, 3, state=state, scores={"nll": 7.0}, share=0.4, reason="a reason")
    runs.send()
    runs.send()
    child = children(run)[7]
    assert child.info.status == status and curve(run, child) == [0, 1, 2, 3]
    assert child.info.run_name == "trial 007 dsm σ 0.3 + anchor"
    assert child.data.params["objective.sigma"] == "0.3"
    early = {"ebflow.pruned": "at 40% of the training: a reason"}
    expected = early if status == "KILLED" else {"ebflow.error": "a reason"}
    names = ("ebflow.pruned", "ebflow.error")
    assert {name: tag for name, tag in child.data.tags.items() if name in names} == expected
    assert child.data.metrics["trial/nll"] == 7.0


def test_trials_of_an_interrupted_search_keep_their_runs_below_the_present_one(run, tmp_path):
    tell(tmp_path, 0, 0, 1, state="finished", scores={"nll": 9.0})
    tell(tmp_path, 1, 0)
    TrialRuns(tmp_path, DENSITY, run).send()
    first = {number: one.info.run_id for number, one in children(run).items()}
    run.client.set_terminated(first[1], "KILLED")
    tracker = connect("tests", "key")
    again = StageRun(tracker.client, tracker.start("search, again", {}))
    runs = TrialRuns(tmp_path, DENSITY, again)
    records.begin(tmp_path, 1)
    runs.send()
    assert children(again)[1].info.status == "RUNNING"
    tell(tmp_path, 1, 1, 2, state="finished", scores={"nll": 8.0})
    runs.send()
    found = children(again)
    assert {number: one.info.run_id for number, one in found.items()} == first
    assert {one.info.status for one in found.values()} == {"FINISHED"}
    assert curve(again, found[1]) == [0, 1, 2] and not children(run)


class Away:
    """A client of a store that is away for a while, at one of its calls."""

    def __init__(self, client, call):
        self.client, self.call, self.away = client, call, True

    def __getattr__(self, name):
        if name == self.call and self.away:
            raise MlflowException("away")
        return getattr(self.client, name)


@pytest.mark.parametrize("call", ["create_run", "log_batch", "set_terminated"])
def test_what_the_store_refuses_is_sent_later_and_once(run, tmp_path, call):
    away = Away(run.client, call)
    runs = TrialRuns(tmp_path, DENSITY, StageRun(away, run.id))
    tell(tmp_path, 0, 0, 1, state="finished", scores={"nll": 9.0})
    with pytest.raises(MlflowException):
        runs.send()
    away.away = False
    runs.send()
    assert children(run)[0].info.status == "FINISHED"
    assert curve(run, children(run)[0]) == [0, 1]
    assert len(children(run)) == 1
