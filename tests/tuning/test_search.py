"""Real searches on digits: their results, failed trials, and how they resume after a kill."""

import json
import time

import mlflow
import psutil
import pytest
import yaml

from pipelines.cli import main
from pipelines.config import Training
from pipelines.config.section import changes
from tuning.command import parse_tune
from tuning.search import searcher

from ..pipelines.conftest import OnCluster
from ..pipelines.nodes import ROOT, Cluster
from ..pipelines.processes import wait
from .conftest import Store

QUICK = ("--train.steps", "60", "--train.validate-every", "20", "--train.log-every", "20")
# Fewer training rows than dimensions: trials that whiten fail. Slow: others pass the default.
SINGULAR = (
    "--data.rows", "110", "--data.validation", "20", "--data.test", "20",
    "--train.batch-size", "25",
    "--preprocess.normalize", "standardize", "--preprocess.shrinkage", "0",
    "--over", "preprocessing", "optimization", "--train.lr", "1e-4",
)  # fmt: skip

TRIALS = 3
WORDS = ("tune", "density", "--trials", TRIALS, "--random", TRIALS, "--top", 1, "--seeds", 2)
PATIENCE_S = 600


def proposed(seed):
    """Returns the options in which the trials of a seed will differ from the default."""
    words = [*WORDS[2:], *QUICK, *SINGULAR, "--seed", seed]
    _, config = parse_tune([str(word) for word in words])
    proposals = searcher(config)
    trials = [proposals.suggest(str(number))["training"] for number in range(TRIALS)]
    return [changes(config.start, Training.model_validate(trial)) for trial in trials]


def failing(changed):
    return changed.get("preprocess.normalize") == "whiten"


@pytest.fixture(scope="module")
def seed():
    """The first seed with a trial that will fail."""
    return next(seed for seed in range(100) if any(map(failing, proposed(seed))))


@pytest.fixture(scope="module")
def searched(tmp_path_factory, seed):
    """A finished search, and what it printed; do not change it."""
    store = Store(tmp_path_factory.mktemp("tune"))
    store.words = [*WORDS, *QUICK, *SINGULAR, "--seed", seed]
    store.printed = store.run(*store.words)
    store.output = store.root / "runs" / "tune" / "digits"
    store.summary = json.loads((store.output / "summary.json").read_text())
    return store


def runs(store):
    """Returns MLflow's runs of the search, by their id."""
    client = mlflow.MlflowClient(f"sqlite:///{store.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tune-density").experiment_id
    found = {run.info.run_id: run for run in client.search_runs([experiment], max_results=500)}
    return client, found


def trial_runs(store):
    """Returns the runs of trials, by their number; there is one each."""
    tagged = [run for run in runs(store)[1].values() if "ebflow.trial" in run.data.tags]
    numbered = {int(run.data.tags["ebflow.trial"]): run for run in tagged}
    assert len(numbered) == len(tagged)
    return numbered


@pytest.mark.system
def test_the_folder_has_the_results(searched, seed):
    assert {path.name for path in searched.output.iterdir()} == {
        ".redun", "best.yaml", "config.yaml", "figures", "report.html", "summary.json",
        "trials.json",
    }  # fmt: skip
    assert (searched.output / "figures" / "history.png").exists()
    summary = searched.summary
    assert [trial["number"] for trial in summary["tried"]] == list(range(TRIALS))
    assert {trial["state"] for trial in summary["tried"]} <= {"finished", "pruned", "failed"}
    assert [trial["changes"] for trial in summary["tried"]] == proposed(seed)
    numbers = [score["number"] for score in summary["scores"]]
    assert [score["seed"] for score in summary["scores"]][:2] == [seed + 1, seed + 2]
    assert numbers[:2] == [0, 0] and len(numbers) <= 4 and summary["winner"] in numbers
    assert summary["rows"]["selection"] == 20 and summary["rows"]["train"] == 110 - 3 * 20
    assert summary["verdict"] in searched.printed


@pytest.mark.system
def test_a_trial_that_fails_is_recorded_and_the_search_continues(searched):
    failed = [trial for trial in searched.summary["tried"] if trial["state"] == "failed"]
    assert failed and len(failed) < TRIALS
    for trial in failed:
        assert failing(trial["changes"]) and "singular" in trial["reason"]
        run = trial_runs(searched)[trial["number"]]
        assert run.info.status == "FAILED" and "singular" in run.data.tags["ebflow.error"]


@pytest.mark.system
def test_every_trial_is_a_run_below_the_search_with_its_curve(searched):
    client, found = runs(searched)
    whole = found[searched.summary["mlflow_run_id"]]
    parent = whole.data.tags["ebflow.stage.search"]
    assert len(trial_runs(searched)) == TRIALS
    status = {"finished": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
    for trial in searched.summary["tried"]:
        run = trial_runs(searched)[trial["number"]]
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert run.info.status == status[trial["state"]]
        assert run.data.tags["ebflow.state"] == trial["state"]
        assert run.info.run_name.startswith(f"trial {trial['number']:03d} lazy_ml")
        if trial["state"] == "failed":
            continue
        history = client.get_metric_history(run.info.run_id, "val/nll")
        early = [16] * (16 in [metric.step for metric in history])  # if that is an epoch or more
        expected = sorted([*early, *range(0, trial["step"] + 1, 20)])
        assert [metric.step for metric in history] == expected
        assert min(metric.value for metric in history) == trial["nll"]
    paths = {item.path for item in client.list_artifacts(whole.info.run_id)}
    assert {"best.yaml", "figures", "report.html", "trials.json", "summary.json"} <= paths
    scores = [score["test"] for score in searched.summary["scores"] if not score["number"]]
    assert whole.data.metrics["test/nll/default"] == pytest.approx(sum(scores) / len(scores))


@pytest.mark.system
def test_the_best_is_a_configuration_of_the_pipeline(searched, seed, home, ebflow):
    path = searched.output / "best.yaml"
    config = yaml.safe_load(path.read_text())
    assert (config["data"]["selection"], config["seed"]) == (None, seed)
    assert config["name"] == "digits-best"
    winner = searched.summary["tried"][searched.summary["winner"]]
    for name, value in winner["changes"].items():
        section, _, field = name.partition(".")
        assert config[section][field] == value
    result = ebflow("run", "density", "--config", path, "--dry-run")
    assert result.code == 0, result.err
    assert yaml.safe_load(result.text.partition("\n")[2].partition("prepare ")[0]) == config


@pytest.mark.system
def test_the_same_command_again_runs_nothing(searched, monkeypatch, ebflow):
    monkeypatch.chdir(searched.root)
    monkeypatch.setenv("EBFLOW_HOME", str(searched.home))
    result = ebflow(*searched.words, "--dry-run")
    lines = ([word for word in line.split() if not word.isdigit()] for line in result.out[-6:])
    assert [*lines] == [
        [stage, "cached"]
        for stage in ("prepare", "search", "preprocess", "train", "evaluate", "report")
    ]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_if_every_trial_fails_the_first_reason_is_printed(tmp_path):
    store = Store(tmp_path)
    words = ("--train.optimizer", "sgd", "--train.lr", "1e30", "--trials", "1")
    process = store.start("tune", "density", *QUICK, *words)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and len(err.splitlines()) == 1
    assert "every trial failed, the first: step" in err and "--train.lr" in err
    assert trial_runs(store)[0].info.status == "FAILED"


LONG = ("--train.steps", "3000", "--train.validate-every", "200", "--trials", 4, "--random", 4,
        "--top", 1, "--seeds", 1, "--over", "anchor")  # fmt: skip


def ended(process):
    """Waits for a search to end well and quietly, with more patience than a store has."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, ""), err + out


def metrics_files(store):
    return list((store.home / "work").rglob("trials/*/metrics.jsonl"))


def statuses(store):
    database = store.home / "mlflow.db"
    return [run.info.status for run in trial_runs(store).values()] if database.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_search_resumes_and_runs_no_finished_trial_again(tmp_path):
    store = Store(tmp_path)
    process = store.start("tune", "density", *LONG)
    wait("two trials", lambda: len(metrics_files(store)) > 1, process=process)
    wait("a trial's end", lambda: {"FINISHED", "KILLED"} & {*statuses(store)}, process=process)
    time.sleep(3)  # Ray Tune saves its state once a second
    process.kill()
    process.communicate()
    before = trial_runs(store)
    over = {n: run for n, run in before.items() if run.info.status in ("FINISHED", "KILLED")}
    ended(store.start("tune", "density", *LONG))
    summary = json.loads((store.root / "runs" / "tune" / "digits" / "summary.json").read_text())
    assert [trial["number"] for trial in summary["tried"]] == [0, 1, 2, 3]
    after = trial_runs(store)
    for number, run in before.items():
        assert after[number].info.run_id == run.info.run_id
        assert after[number].data.params == run.data.params
    for number, run in over.items():
        assert after[number].info.end_time >= run.info.end_time
        assert summary["tried"][number]["seconds"] == run.data.metrics["trial/seconds"]
    assert {run.info.status for run in after.values()} <= {"FINISHED", "KILLED"}
    assert len({run.data.tags["mlflow.parentRunId"] for run in after.values()}) == 1


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_trial_whose_process_dies_resumes(tmp_path):
    store = Store(tmp_path)
    process = store.start("tune", "density", *LONG)
    wait("two trials", lambda: len(metrics_files(store)) > 1, process=process)
    trials = [child for child in psutil.Process(process.pid).children(recursive=True)
              if "ImplicitFunc" in " ".join(child.cmdline())]  # fmt: skip
    trials[0].kill()
    wait(
        "a restart",
        lambda: any('"restart"' in path.read_text() for path in metrics_files(store)),
        process=process,
    )
    ended(process)
    summary = json.loads((store.root / "runs" / "tune" / "digits" / "summary.json").read_text())
    assert {trial["state"] for trial in summary["tried"]} <= {"finished", "pruned"}
    assert {run.info.status for run in trial_runs(store).values()} <= {"FINISHED", "KILLED"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_trials_that_launch_workers_wait_for_no_other_and_leave_no_placement_group(tmp_path):
    words = ("--trials", 2, "--top", 1, "--seeds", 1, "--workers", 2)
    # Ray Train's cleaner of placement groups stopped at a second Ray on the machine.
    with Cluster(), Cluster(PYTHONPATH=str(ROOT)) as cluster, cluster.nodes(2):
        store = OnCluster(tmp_path, cluster)
        ended(store.start("tune", "density", *QUICK, *words))
        _, body = cluster.get("/api/v0/placement_groups?limit=10000", cluster.token)
        groups = json.loads(body)["data"]["result"]["result"]
    summary = json.loads((store.root / "runs" / "tune" / "digits" / "summary.json").read_text())
    assert [trial["state"] for trial in summary["tried"]][0] == "finished"
    assert all(trial["step"] for trial in summary["tried"])
    assert groups and {group["state"] for group in groups} == {"REMOVED"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_time_budget_in_which_no_trial_starts_is_one_line(tmp_path):
    process = Store(tmp_path).start("tune", "density", *QUICK, "--time-budget", "0.001")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and len(err.splitlines()) == 1
    assert "--time-budget: found 0.001 s, in which no trial started, expected more" in err


LINES = {
    "no trials": ("--trials 0", "--trials: found 0, expected at least 1"),
    "unknown subject": ("--over sigma", "'sigma'"),
    "nothing to search": (
        "--over anchor --objective.name ml",
        "--over: found anchor, of which ml has no parameter, expected others",
    ),
    "too few rows": ("--data.selection 1600", "1600 for selection"),
}


@pytest.mark.parametrize("words, line", LINES.values(), ids=LINES)
def test_bad_input_is_one_line_and_writes_nothing(words, line, home, ebflow):
    result = ebflow("tune", "density", *words.split())
    assert line in result.refusal
    assert not home.exists() and not list(home.parent.glob("here/*"))


def test_help_teaches_without_torch(capsys):
    assert main.main(["tune", "density", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "usage: ebflow tune density" in printed and "--time-budget" in printed
