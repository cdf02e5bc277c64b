"""Trials: their number at a time, their reports, and what is wrong if there are none."""

import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import cloudpickle
import optuna
import pytest
from mlflow.exceptions import MlflowException

from ebflow.errors import BadInput, NonFinite
from pipelines import metrics_log, store
from pipelines.cluster import environment
from pipelines.config import ClusterConfig, DensityConfig, EvaluateConfig, TrainConfig
from pipelines.engine.stages import Artefact, Source, key_of
from pipelines.errors import StageFailed
from pipelines.tracking.run import StageRun
from pipelines.tracking.tracker import connect
from tuning import graph, trials
from tuning.config import SearchConfig, TuneConfig
from tuning.search import concurrency, search, searcher, trial_needs
from tuning.trials import FAILED, TRIALS, Listener, TrialRuns, outcome, propose, train

from ..pipelines.untracked import Untracked


def searched(threads=1, **cluster):
    base = DensityConfig(train=TrainConfig(threads=threads), cluster=ClusterConfig(**cluster))
    return TuneConfig(base=base)


HERE, CLUSTER = True, False
ROOM = {
    "a thread each": (searched(), HERE, 4),
    "two threads": (searched(2), HERE, 2),
    "workers": (searched(workers=2), HERE, 2),
    "a GPU": (searched(gpu=1), HERE, 1),
    "memory, which counts on clusters alone": (searched(memory=64), HERE, 4),
    "more threads than there are CPUs": (searched(5), HERE, 1),
    "a cluster that may grow": (searched(99, workers=8), CLUSTER, 8),
}


@pytest.mark.parametrize("config, here, expected", ROOM.values(), ids=ROOM)
def test_trials_at_a_time(config, here, expected, monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: here)
    monkeypatch.setattr(environment, "cpus", lambda: 4)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert concurrency(config) == expected
    assert not here or trial_needs(config.start)["CPU"] <= 4


def test_a_driver_leaves_the_cpus_to_its_workers():
    assert trial_needs(searched(2).start) == {"CPU": 2}
    assert trial_needs(searched(2, workers=2).start)["CPU"] == 0


def ended(number=0, error=None, **metrics):
    """Returns a trial of Ray Tune."""
    return SimpleNamespace(
        trial_id=str(number),
        config={
            "number": number,
            "training": TuneConfig().start.model_dump(mode="json"),
            "run": "id",
        },
        status="TERMINATED" if error is None else "ERROR",
        last_result=metrics,
        get_pickled_error=lambda: error,
    )


@pytest.fixture
def searching(monkeypatch, tmp_path):
    """Runs a search whose trials end as the trials that it is called with."""

    def run(*trials, **options):
        def fit():
            folders.append(Path.cwd())
            TrialRuns().on_experiment_end(trials)

        monkeypatch.setattr(TrialRuns, "search", None)  # as before, after the test
        monkeypatch.setattr("tuning.search._tuner", lambda *words: SimpleNamespace(fit=fit))
        monkeypatch.setattr("tuning.search.Dataset", Mock())
        monkeypatch.setattr(TrialRuns, "_end", lambda self, trial: None)
        folders, config = [], TuneConfig(search=SearchConfig(**options))
        search(config, tmp_path, run=Untracked(tmp_path, tmp_path))
        return folders

    return run


@pytest.mark.parametrize("trials", [[], [ended(trial_id="0")]], ids=["none", "one in the queue"])
def test_a_time_in_which_no_trial_starts_is_one_line(searching, trials):
    with pytest.raises(BadInput, match="--time-budget: found 0.5 s, in which no trial started"):
        searching(*trials, time_budget=0.5)


def test_a_search_in_which_no_trial_started_is_not_restored(searching, tmp_path):
    """Ray Tune takes it for finished."""
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "experiment_state-1.json").touch()
    with pytest.raises(BadInput, match="no trial started"):
        searching(time_budget=0.5)
    assert not (tmp_path / "tune").exists()


def test_a_search_needs_the_trial_of_the_default(searching):
    with pytest.raises(StageFailed, match="the trial of the default.* never started"):
        searching(ended(1, nll=1.0, share=1.0))


def test_if_every_trial_failed_the_first_reason_is_raised(searching):
    diverged = ended(1, nll=math.inf, reason="step 4: the loss is nan")
    with pytest.raises(StageFailed, match="every trial failed, the first: .*disk full"):
        searching(diverged, ended(0, RuntimeError("disk full")))


def test_a_search_stays_in_its_working_directory(searching):
    """Other stages share its process."""
    before = Path.cwd()
    assert [*searching(ended(nll=1.0, share=1.0)), Path.cwd()] == [before, before]


def validated(step, nll):
    metrics = {"val/nll": nll, "time/train_s": float(step)}
    return metrics_log.row("validate", step, step / 10, metrics=metrics)


def test_a_trial_reports_its_least_nll_after_validations():
    reports = []
    listener = Listener(reports.append)
    listener([validated(1, 5.0), validated(2, 4.0), validated(3, 7.0)])
    listener([{"kind": "log", "step": 4, "share": 0.4, "metrics": {}}])
    listener([validated(5, 6.0)])
    found = [(row["nll"], row["step"], row["share"]) for row in reports]
    assert found == [(5.0, 1, 0.1), (4.0, 2, 0.2), (4.0, 3, 0.3), (4.0, 5, 0.5)]


def test_the_curve_of_a_trial_on_another_node_is_completed_from_the_bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("EBFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/bucket")
    work, completed = store.home() / "work", []
    file = work / TRIALS / "1" / metrics_log.FILE
    file.parent.mkdir(parents=True)
    metrics_log.append(file, [validated(1, 5.0), validated(2, 4.0)])
    store.upload(file)
    shutil.rmtree(work)
    search = SimpleNamespace(work=work, id="search", client=None)
    run = Mock(id="run", complete=lambda rows, **_: completed.extend(rows))
    monkeypatch.setattr(trials, "StageRun", lambda client, id: run)
    monkeypatch.setattr(TrialRuns, "search", search, raising=False)
    monkeypatch.setattr(TrialRuns, "config", TuneConfig(), raising=False)
    TrialRuns().on_trial_complete(ended(1))
    assert [row["step"] for row in completed] == [1, 2]


def test_a_diverged_trial_keeps_its_step_and_seconds(tmp_path, monkeypatch):
    reports = []
    context = SimpleNamespace(get_trial_id=lambda: "one")
    tune = SimpleNamespace(report=reports.append, get_context=lambda: context)

    def fit(training, data, chain, folder, reporter, **options):
        reporter.log([validated(3, 5.0)])
        raise NonFinite("step 4: the loss is nan")

    monkeypatch.setattr(trials, "tune", tune)
    for name in ("StageRun", "fit_preprocessing", "Dataset"):
        monkeypatch.setattr(trials, name, Mock())
    monkeypatch.setattr(trials, "fit", fit)
    train(ended(1).config, data=tmp_path, work=tmp_path / "work", search=Mock())
    found = outcome(TuneConfig().start, ended(1, **reports[-1]))
    assert (found.state, found.nll, found.step, found.seconds) == (FAILED, None, 3, 3.0)
    assert "step 4: the loss is nan" in found.reason


@pytest.fixture
def tracked(tracking_home, monkeypatch):
    """The run of a search, and a trial of it that has ended and left its curve."""
    tracker = connect("tests", "key")
    search = StageRun(tracker.client, tracker.start("search", {}))
    search.work = tracking_home
    monkeypatch.setattr(TrialRuns, "search", search)
    trial = ended(nll=2.0, share=1.0, done=True)
    trial.config = propose(optuna.create_study().ask(), searched().start, SearchConfig())
    rows = [metrics_log.row("validate", 1, 1.0, metrics={"val/nll": 2.0})]
    folder = tracking_home / TRIALS / "0"
    folder.mkdir(parents=True)
    metrics_log.append(folder / metrics_log.FILE, rows)
    monkeypatch.setattr(TrialRuns, "config", searched(), raising=False)
    return search, trial


def test_a_trial_is_a_run_below_the_search_with_its_curve(tracked):
    search, trial = tracked
    TrialRuns().on_trial_start(trial=trial)
    TrialRuns().on_trial_complete(trial=trial)
    run = search.client.get_run(trial.config["run"])
    assert re.fullmatch("trial 000 .* default", run.info.run_name)
    assert run.data.tags["mlflow.parentRunId"] == search.id
    assert (run.info.status, run.data.metrics["val/nll"]) == ("FINISHED", 2.0)


def test_mlflow_may_be_away_when_a_trial_ends(tracked, monkeypatch):
    """The end of the search completes its run."""
    search, trial = tracked

    def away(*words, **options):
        raise MlflowException("away")

    with monkeypatch.context() as patch:
        patch.setattr(search.client, "log_batch", away)
        TrialRuns().on_trial_complete(trial=trial)
    TrialRuns().on_experiment_end([trial])
    run = search.client.get_run(trial.config["run"])
    assert (run.info.status, run.data.metrics["val/nll"]) == ("FINISHED", 2.0)


def test_the_proposals_of_a_search_that_resumes_are_below_its_new_run(tracked, monkeypatch):
    """Ray Tune unpickles the searcher of the first attempt."""
    search, _ = tracked
    proposals = cloudpickle.dumps(searcher(searched()))
    again = StageRun(search.client, search.child("search", {}).id)
    monkeypatch.setattr(TrialRuns, "search", again)
    proposal = cloudpickle.loads(proposals).suggest("0")
    run = search.client.get_run(proposal["run"])
    assert run.data.tags["mlflow.parentRunId"] == again.id


AFTER = {
    "top": TuneConfig(search=SearchConfig(top=5)),
    "seeds": TuneConfig(search=SearchConfig(seeds=5)),
    "evaluate": TuneConfig(base=DensityConfig(evaluate=EvaluateConfig(samples=5))),
}


@pytest.mark.parametrize("other", [TuneConfig(), *AFTER.values()], ids=["run", *AFTER])
def test_a_search_has_the_same_key_if_only_what_follows_it_differs(other, monkeypatch):
    """Nor is the id of the MLflow run that prepared equal data a part of it."""

    def key(run_id, config):
        data = Artefact(stage="prepare", key="key", digest="digest", size=1, run_id=run_id)
        monkeypatch.setattr(graph, "prepare", lambda *words, **inputs: data)
        expression = graph.tune(config, (Source("here", "digest"), config))["search"]
        return key_of(*expression.args)

    assert key("one run", TuneConfig()) == key("another run", other)
