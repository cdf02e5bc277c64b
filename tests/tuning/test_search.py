"""Real searches on digits: what they leave, what a failure costs, how they go on after a kill."""

import json
import time

import mlflow
import psutil
import pytest
import yaml

from pipelines.cli import main
from pipelines.cluster import environment
from tuning import records
from tuning.command import parse_tune
from tuning.problems import problem
from tuning.search import searcher

from .conftest import Store

QUICK = ("--train.steps", "60", "--validate-every", "20", "--train.log-every", "20")
SINGULAR = (
    "--data.rows", "110", "--data.validation", "20", "--data.test", "20",
    "--train.batch-size", "25",
    "--preprocess.normalize", "standardize", "--preprocess.shrinkage", "0",
    "--over", "preprocessing", "optimization", "--train.lr", "1e-4",
)  # fmt: skip
"""Fewer training rows than dimensions: trials that whiten fail. Slow: others pass the default."""

TRIALS = 3
WORDS = ("tune", "density", "--trials", TRIALS, "--random", TRIALS, "--top", 1, "--seeds", 2)
PATIENCE_S = 600


def proposed(seed):
    """Returns in what the trials of that seed will differ from the default."""
    words = [*WORDS[2:], *QUICK, *SINGULAR, "--seed", seed]
    _, config = parse_tune([str(word) for word in words])
    proposals = searcher(problem(config))
    return [proposals.suggest(str(number))["changes"] for number in range(TRIALS)]


def failing(changes):
    return changes.get("preprocess.normalize") == "whiten"


@pytest.fixture(scope="module")
def seed():
    """The first seed of which a trial will fail."""
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
    found = runs(store)[1].values()
    tagged = [run for run in found if "ebflow.trial" in run.data.tags]
    numbered = {int(run.data.tags["ebflow.trial"]): run for run in tagged}
    assert len(numbered) == len(tagged)
    return numbered


@pytest.mark.system
def test_the_folder_has_what_a_person_wants(searched):
    assert {path.name for path in searched.output.iterdir()} == {
        "best.yaml", "config.yaml", "figures", "report.html", "summary.json", "trials.json",
    }  # fmt: skip
    figures = {path.stem for path in (searched.output / "figures").glob("*.png")}
    assert {"settings", "history"} <= figures
    page = (searched.output / "report.html").read_text()
    assert searched.summary["verdict"][1:] in page and page.count("data:image/png") == len(figures)


@pytest.mark.system
def test_the_summary_has_the_trials_that_the_seed_proposes_and_every_seed(searched, seed):
    summary = searched.summary
    assert [trial["number"] for trial in summary["tried"]] == list(range(TRIALS))
    assert not summary["tried"][0]["changes"]
    assert {trial["state"] for trial in summary["tried"]} <= {"finished", "pruned", "failed"}
    assert [trial["changes"] for trial in summary["tried"]] == proposed(seed)
    first = 1 + seed
    for setting in summary["settings"]:
        for split in ("select", "test"):
            assert set(setting["scores"][split]["nll"]) == {str(first), str(first + 1)}
    numbers = [setting["number"] for setting in summary["settings"]]
    assert numbers[0] == 0 and len(numbers) <= 2 and summary["winner"] in numbers
    assert 0 < summary["cpus_busy"] <= environment.cpus() and summary["rows"]["selection"] == 20
    assert summary["rows"]["train"] == 110 - 3 * 20
    assert f"{summary['cpus_busy']:.1f} cores busy on average" in searched.printed
    assert summary["verdict"] in searched.printed


@pytest.mark.system
def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(searched):
    failed = [trial for trial in searched.summary["tried"] if trial["state"] == "failed"]
    assert failed and len(failed) < TRIALS
    for trial in failed:
        assert failing(trial["changes"])
        assert "singular" in trial["reason"]
        run = trial_runs(searched)[trial["number"]]
        assert run.info.status == "FAILED" and "singular" in run.data.tags["ebflow.error"]


@pytest.mark.system
def test_every_trial_is_a_run_below_the_search_with_its_curve(searched):
    client, found = runs(searched)
    whole = found[searched.summary["mlflow_run_id"]]
    parent = found[whole.data.tags["ebflow.stage.search"]]
    assert len(trial_runs(searched)) == TRIALS
    status = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    for trial in searched.summary["tried"]:
        run = trial_runs(searched)[trial["number"]]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == status[trial["state"]]
        assert ("ebflow.pruned" in run.data.tags) == (trial["state"] == "pruned")
        assert run.info.run_name.startswith(f"trial {trial['number']:03d} lazy_ml")
        if trial["state"] == "failed":
            continue
        history = client.get_metric_history(run.info.run_id, "val/nll")
        early = [16] * (16 in [metric.step for metric in history])  # if that is an epoch or more
        expected = sorted([*early, *range(0, trial["step"] + 1, 20)])
        assert [metric.step for metric in history] == expected
        assert min(metric.value for metric in history) == trial["scores"]["nll"]
    assert found[whole.info.run_id].data.params["base.objective.name"] == "lazy_ml"


@pytest.mark.system
def test_the_searchs_run_has_figures_page_and_best(searched):
    client, found = runs(searched)
    paths = {item.path for item in client.list_artifacts(searched.summary["mlflow_run_id"])}
    assert {"best.yaml", "figures", "report.html", "trials.json", "summary.json"} <= paths
    metrics = found[searched.summary["mlflow_run_id"]].data.metrics
    means = searched.summary["settings"][0]["means"]
    assert metrics["test/nll/default"] == pytest.approx(means["test"]["nll"]["value"])


@pytest.mark.system
def test_the_best_is_a_configuration_of_the_pipeline(searched, seed, home, ebflow):
    path = searched.output / "best.yaml"
    config = yaml.safe_load(path.read_text())
    assert (config["data"]["selection"], config["seed"], config["name"]) == (
        None,
        seed,
        "digits-best",
    )
    winner = searched.summary["tried"][searched.summary["winner"]]
    for name, value in winner["changes"].items():
        section, _, field = name.partition(".")
        assert config[section][field] == value
    result = ebflow("run", "density", "--config", path, "--dry-run")
    assert result.code == 0, result.err
    assert yaml.safe_load(result.text.partition("\n")[2].partition("prepare ")[0]) == config


@pytest.mark.system
def test_the_same_command_again_runs_nothing(searched, seed, monkeypatch, ebflow):
    monkeypatch.chdir(searched.root)
    monkeypatch.setenv("EBFLOW_HOME", str(searched.home))
    result = ebflow(*searched.words, "--dry-run")
    assert [line.split() for line in result.out[-6:]] == [
        [stage, "cached"]
        for stage in ("prepare", "search", "preprocess", "train", "evaluate", "verdict")
    ]
    result = ebflow(*searched.words, "--resume", "--dry-run")
    assert result.code == 0
    other = ebflow(*searched.words[:-1], seed + 1, "--resume", "--dry-run")
    assert "--resume: found no search by this command" in other.refusal


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_if_every_trial_fails_the_first_reason_is_told(tmp_path):
    store = Store(tmp_path)
    words = ("--train.optimizer", "sgd", "--train.lr", "1e30", "--trials", "1")
    process = store.start("tune", "density", *QUICK, *words)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and len(err.splitlines()) == 1
    assert "every trial failed, the first: step" in err and "--train.lr" in err
    assert trial_runs(store)[0].info.status == "FAILED"


LONG = ("--train.steps", "3000", "--validate-every", "200", "--trials", 4, "--random", 4,
        "--top", 1, "--seeds", 1, "--over", "anchor")  # fmt: skip


def found(store):
    """Returns the trials that an unfinished search has recorded."""
    roots = list((store.home / "work" / "search").glob("*/trials"))
    return roots[0] if roots else None, records.read(roots[0]) if roots else []


def ended(process):
    """Waits for a search to end well and quietly, with more patience than a store has."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, ""), err + out


def wait_for_an_end(store):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        trials = found(store)[1]
        ended = [one for one in trials if one.state != records.RUNNING]
        if ended and len(trials) > len(ended):
            time.sleep(3)
            return found(store)
        time.sleep(0.2)
    raise TimeoutError("no trial ended while another ran")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_search_goes_on_and_runs_no_finished_trial_again(tmp_path):
    store = Store(tmp_path)
    process = store.start("tune", "density", *LONG)
    root, before = wait_for_an_end(store)
    over = [one for one in before if one.state != records.RUNNING]
    process.kill()
    process.communicate()
    first = {number: run.info.run_id for number, run in trial_runs(store).items()}
    ended(store.start("tune", "density", *LONG, "--resume"))
    summary = json.loads((store.root / "runs" / "tune" / "digits" / "summary.json").read_text())
    assert [trial["number"] for trial in summary["tried"]] == [0, 1, 2, 3]
    by_number = {trial["number"]: trial for trial in summary["tried"]}
    for one in before:
        assert by_number[one.number]["changes"] == one.changes
    for one in over:
        kept = by_number[one.number]
        assert (kept["scores"], kept["seconds"]) == (one.scores, one.seconds)
    assert {n: trial_runs(store)[n].info.run_id for n in first} == first
    assert {run.info.status for run in trial_runs(store).values()} <= {"FINISHED", "KILLED"}
    parents = {run.data.tags["mlflow.parentRunId"] for run in trial_runs(store).values()}
    assert len(parents) == 1


def underway(trials):
    return len(trials) > 1 and all(one.step for one in trials)


def resumed(root):
    return any("goes on from step" in path.read_text() for path in root.glob("*/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_trial_whose_process_dies_goes_on(tmp_path):
    store = Store(tmp_path)
    process = store.start("tune", "density", *LONG)
    deadline = time.monotonic() + PATIENCE_S
    while not underway(found(store)[1]) and time.monotonic() < deadline:
        time.sleep(0.2)
    trials = [child for child in psutil.Process(process.pid).children(recursive=True)
              if "ImplicitFunc" in " ".join(child.cmdline())]  # fmt: skip
    trials[0].kill()
    root, _ = found(store)
    while not resumed(root) and time.monotonic() < deadline:
        time.sleep(0.2)
    ended(process)
    summary = json.loads((store.root / "runs" / "tune" / "digits" / "summary.json").read_text())
    assert {trial["state"] for trial in summary["tried"]} <= {"finished", "pruned"}
    assert {run.info.status for run in trial_runs(store).values()} <= {"FINISHED", "KILLED"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_trials_that_launch_workers_do_not_wait_for_each_other(tmp_path):
    store = Store(tmp_path)
    words = ("--trials", 2, "--top", 1, "--seeds", 1, "--workers", 2)
    ended(store.start("tune", "density", *QUICK, *words))
    summary = json.loads((store.root / "runs" / "tune" / "digits" / "summary.json").read_text())
    assert [trial["state"] for trial in summary["tried"]][0] == "finished"
    assert all(trial["step"] for trial in summary["tried"])


LINES = {
    "no trials": ("--trials 0", "--trials: found 0, expected greater than or equal to 1"),
    "no number": ("--trials many", "--trials: found 'many', expected a whole number"),
    "no seeds": ("--seeds 0", "--seeds: found 0, expected greater"),
    "no grace": ("--grace 0", "--grace: found 0.0, expected greater than 0"),
    "unknown subject": ("--over sigma", "--over: found 'sigma', expected one of"),
    "unknown objective": ("--objectives gan", "--objectives: found 'gan', expected one of"),
    "an objective that the base does not suit": (
        "--objectives relative_ml --stabilise.low-energy 0.1",
        "--objectives: found relative_ml; objective.name: found 'relative_ml' with low_energy",
    ),
    "a trial that never fits": (
        f"--train.threads {4 * environment.cpus()}",
        "found a trial that needs",
    ),
    "nothing to search": (
        "--over anchor --objective.name ml",
        "--over: found anchor, of which ml has no parameter, expected others",
    ),
    "nothing to go on with": ("--resume", "--resume: found no search by this command"),
    "too few rows": ("--data.selection 1600", "1600 for selection"),
    "an option of the pipeline": ("--train.lr -1", "--train.lr: found -1.0, expected greater"),
}


@pytest.mark.parametrize("words, line", LINES.values(), ids=LINES)
def test_bad_input_is_one_line_and_writes_nothing(words, line, home, ebflow):
    result = ebflow("tune", "density", *words.split())
    assert line.replace("objective.name", "--objective.name") in result.refusal
    assert not home.exists() and not list(home.parent.glob("here/*"))


def test_help_teaches_without_torch(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["tune", "density", "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert "usage: ebflow tune density" in printed and "--max-concurrent" in printed
