"""Searches over regularizers: their space, their rules, and a real one on digits."""

import json

import mlflow
import optuna
import pytest
import torch
import yaml
from optuna.trial import FixedTrial

from ebflow.architectures import dense
from ebflow.checkpoint import save
from ebflow.errors import NonFinite
from pipelines.cluster.environment import cpus
from pipelines.config.changes import changes
from pipelines.data.prepare import prepare
from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    ClassifierConfig,
    CustomConfig,
    MeasureConfig,
)
from pipelines.gradient_alignment.scales import models
from pipelines.gradient_alignment.stages.reference import reference as make_reference
from pipelines.training import loop, metrics_log
from tuning.alignment import problem as trials
from tuning.alignment.config import SUBJECTS, AlignmentSearch, AlignmentTune
from tuning.alignment.problem import SECONDS, judge
from tuning.alignment.space import SPACE
from tuning.command import parse_alignment
from tuning.problem import Killed
from tuning.problems import problem
from tuning.search import searcher
from tuning.suggest import Suggest, propose

from ..pipelines.untracked import Untracked
from .conftest import Store

DRAWS = 60
PATIENCE_S = 1200


@pytest.fixture(autouse=True, scope="module")
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def start(name="score", **more):
    """Returns what trials start from: the recommended score matching, or another penalty."""
    custom = {} if name == "score" and not more else {"custom": CustomConfig(name=name, **more)}
    return problem(AlignmentTune(base=AlignmentConfig(**custom))).base


def drawn(start, over=SUBJECTS):
    """Yields random proposals with the parameters that they were made of."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(DRAWS):
        ask = Suggest(study.ask())
        yield propose(ask, SPACE, over, start), ask.params


PENALTIES = {
    "score": start(),
    "one-sided": start("score", estimator="taylor", weight=1e-3, step=0.1),
    "anti": start("anti", weight=0.01),
    "gnorm": start("gnorm", weight=0.01),
}


def test_the_base_is_the_recommended_setting():
    found = PENALTIES["score"]
    penalty = found.regularizer
    assert (penalty.estimator, penalty.directions, penalty.slices) == (
        "taylor_cv",
        "rademacher",
        1,
    )
    assert (penalty.step, penalty.stability, penalty.floor, penalty.warmup) == (
        0.03,
        1e-3,
        1.5,
        0.1,
    )
    assert (penalty.weight, found.noise, found.clip) == (0.1, 0.1, 5.0)


@pytest.mark.parametrize("name", PENALTIES)
def test_every_proposal_is_a_configuration_and_the_base_is_one(name):
    found = PENALTIES[name]
    ask = Suggest()
    assert propose(ask, SPACE, SUBJECTS, found) == found
    assert propose(Suggest(FixedTrial(ask.params)), SPACE, SUBJECTS, found) == found
    for config, params in drawn(found):
        assert ClassifierConfig.model_validate(config.model_dump()) == config
        assert config.regularizer.name == found.regularizer.name
        for option, value in params.items():
            section, _, field = option.partition(" ")[0].rpartition(".")
            holder = getattr(config, section) if section else config
            assert " used" in option or getattr(holder, field) == value


RANGES = {
    "regularizer.step": (3e-3, 0.3),
    "regularizer.step one-sided": (0.05, 0.3),
    "regularizer.weight": (1e-6, 1.0),
    "regularizer.weight one-sided": (1e-6, 1.0),
    "regularizer.stability": (1e-6, 1e-2),
    "regularizer.floor": (1.0, 4.0),
    "regularizer.warmup": (0.0, 0.3),
    "noise": (0.0, 0.3),
    "clip": (1.0, 10.0),
}
CHOICES = {
    "regularizer.estimator": {"taylor", "taylor_cv", "two_sided", "hutchinson", "exact"},
    "regularizer.directions": {"gaussian", "rademacher", "sphere"},
    "regularizer.slices": {1, 2, 4},
    "regularizer.stability used": {True, False},
    "regularizer.floor used": {True, False},
}


def test_the_ranges_of_score_matching():
    values = {}
    for _, params in drawn(PENALTIES["score"]):
        for name, value in params.items():
            values.setdefault(name, set()).add(value)
    assert values.keys() == RANGES.keys() | CHOICES.keys()
    for name, choices in CHOICES.items():
        assert values[name] == choices
    for name, (low, high) in RANGES.items():
        assert low <= min(values[name]) < max(values[name]) <= high


def test_what_an_estimator_does_not_use_is_not_asked_for():
    for config, params in drawn(PENALTIES["score"]):
        estimator = config.regularizer.estimator
        side = estimator == "taylor"
        assert ("regularizer.directions" in params) == (estimator != "exact")
        assert ("regularizer.slices" in params) == (estimator != "exact")
        stepped = estimator not in ("exact", "hutchinson")
        assert ("regularizer.step one-sided" in params) == side
        assert ("regularizer.step" in params) == (stepped and not side)
        assert ("regularizer.weight one-sided" in params) == side
        assert ("regularizer.weight" in params) != side


def test_a_change_of_side_alone_starts_at_its_own_strength():
    for name, own, other in (("score", 0.1, 1e-3), ("one-sided", 1e-3, 0.1)):
        found = PENALTIES[name]
        for config, _ in drawn(found, ("estimator",)):
            same = (config.regularizer.estimator == "taylor") == (name == "one-sided")
            assert config.regularizer.weight == (own if same else other)


def test_each_penalty_has_its_own_parameters():
    used = {name: set().union(*(params for _, params in drawn(PENALTIES[name])))
             for name in PENALTIES}  # fmt: skip
    assert "regularizer.ceiling" in used["anti"] and "regularizer.ceiling" not in used["score"]
    assert not {"regularizer.floor", "regularizer.stability"} & used["anti"]
    assert used["gnorm"] == {"regularizer.weight", "regularizer.warmup", "noise", "clip used",
                              "clip"}  # fmt: skip


def test_what_is_not_searched_over_stays():
    owned = {
        "estimator": {"estimator", "directions", "slices", "step", "weight"},
        "strength": {"weight"},
        "stabilisation": {"stability", "floor"},
        "noise": {"noise"},
        "optimization": {"warmup", "clip"},
    }
    assert owned.keys() == SPACE.keys() == set(SUBJECTS)
    for subject in SUBJECTS:
        for config, _ in drawn(PENALTIES["score"], (subject,)):
            changed = changes(PENALTIES["score"], config)
            assert {name.rpartition(".")[2] for name in changed} <= owned[subject]


def first(seed, count=8):
    proposals = searcher(problem(AlignmentTune(base=AlignmentConfig(seed=seed))))
    return [proposals.suggest(str(i)) for i in range(count)]


def test_the_same_seed_gives_the_same_first_trials_and_the_base_is_the_first():
    one, two, other = first(0), first(0), first(1)
    assert one == two and one[1:] != other[1:]
    assert one[0]["changes"] == other[0]["changes"] == {}
    for trial, subject in zip(one[1:], SUBJECTS, strict=False):
        names = {name.rpartition(".")[2] for name in trial["changes"]}
        assert subject == "estimator" or len(names) <= 2


def test_goals_are_large_but_a3_of_anti():
    up, right = problem(AlignmentTune(search=AlignmentSearch(drop=0.02))).goals
    assert (up.mode, right.mode, right.margin) == ("max", "max", 0.02)
    assert up.cost(0.9) < up.cost(0.1) < up.cost(up.worst)
    anti = AlignmentConfig(custom=CustomConfig(name="anti", weight=0.01))
    down, right = problem(AlignmentTune(base=anti)).goals
    assert (down.mode, right.mode) == ("min", "max") and down.cost(-0.1) < down.worst


RULES = {
    "none": (1.0, "", 0.92, None),
    "within its grace": (0.3, "", 0.10, None),
    "an accuracy lost": (0.4, "", 0.90, "accuracy 0.900, more than 0.05 below the 0.960 of plain"),
    "a trace below its floor": (0.1, "collapse: mean trace -9e3", 0.96, "collapse: mean trace"),
}


@pytest.mark.parametrize("share, diagnosis, accuracy, line", RULES.values(), ids=RULES)
def test_rules_end_a_trial(share, diagnosis, accuracy, line):
    arguments = AlignmentSearch(), share, diagnosis, accuracy, 0.96
    if line is None:
        judge(*arguments)
    else:
        with pytest.raises(Killed, match=line):
            judge(*arguments)


def test_a_winner_is_the_custom_model_of_the_study_beside_its_control():
    winner = next(config for config, _ in drawn(PENALTIES["score"]))
    searched = problem(AlignmentTune())
    study = searched.settled(winner)
    found = {model.name: model.classifier for model in models(study)}
    assert found["custom"] == winner
    control = found["custom-control"]
    assert control.regularizer.name == "gnorm" and control.noise == winner.noise
    assert "custom" not in {model.name for model in models(AlignmentConfig())}
    anti = searched.settled(PENALTIES["anti"])
    assert "custom-control" not in {model.name for model in models(anti)}


LINES = {
    "no reference of a class": (
        "--reference.conditional False",
        "--reference.conditional: found False, with which there is no A3, expected True",
    ),
    "not a penalty": (
        "--custom.name fool --custom.weight 1",
        "--custom.name: found fool, expected score, anti",
    ),
    "no penalty": ("--custom.name gnorm", "--custom.weight: found 0, which adds nothing"),
    "no loss of accuracy": ("--drop 0", "--drop: found 0.0, expected greater than 0"),
    "nothing to search": (
        "--custom.name gnorm --custom.weight 0.1 --over estimator",
        "--over: found estimator, of which gnorm λ 0.1 has no parameter, expected others",
    ),
    "nothing to go on with": ("--resume", "--resume: found no search by this command"),
    "no classes": ("--data.label None", "--data.label: found None, expected the column"),
}


@pytest.mark.parametrize("words, line", LINES.values(), ids=LINES)
def test_bad_input_is_one_line_and_writes_nothing(words, line, home, ebflow):
    result = ebflow("tune", "gradient-alignment", *words.split())
    assert line in result.refusal
    assert not home.exists() and not list(home.parent.glob("here/*"))


TRIALS = 4
QUICK = ("--data.rows", 500, "--data.validation", 100, "--data.test", 100, "--epochs", 4,
         "--reference.steps", 20)  # fmt: skip
WORDS = (*QUICK, "--trials", TRIALS, "--random", TRIALS, "--over", "strength", "--top", 1,
         "--seeds", 2, "--drop", 0.001)  # fmt: skip


def proposed(seed):
    """Returns the strengths that trials of a seed will have, but the base."""
    _, config = parse_alignment([str(word) for word in (*WORDS, "--seed", seed)])
    proposals = searcher(problem(config))
    found = [proposals.suggest(str(number))["changes"] for number in range(TRIALS)]
    return [params["regularizer.weight"] for params in found[1:]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """What trials read: digits, a reference of all of them, a plain training of six epochs."""
    data, trained, reference, plain = map(
        tmp_path_factory.mktemp, ("data", "flow", "reference", "plain")
    )
    prepare("digits", data / "digits", label="label")
    save(dense((64,), generator=torch.Generator()), trained / "checkpoint")
    make_reference(MeasureConfig(), data / "digits", [trained], run=Untracked(reference))
    (plain / fitting.STATE).write_text(json.dumps({"epochs": [{"val/accuracy": 0.0}] * 6}))
    return data / "digits", reference, plain


class Stop(Exception):
    """Ends a trial, as a kill does."""


def tried(inputs, folder, monkeypatch, reports):
    """Runs a trial in a folder until so many reports; returns them."""
    reported = []

    def report(metrics):
        reported.append({name: metrics[name] for name in ("A2", "accuracy", "step", "share")})
        if len(reported) == reports:
            raise Stop

    monkeypatch.setattr(trials.tune, "report", report)
    config = ClassifierConfig(epochs=6, regularizer={"name": "gnorm", "weight": 0.01})
    folder.mkdir(exist_ok=True)
    try:
        problem(AlignmentTune()).train(config, inputs, folder)
    except Stop:
        assert reports < 6
    return reported


def plain(curve):
    """Returns rows of a curve without what a clock said."""
    measured = [{k: v for k, v in row["metrics"].items() if k != SECONDS} for row in curve]
    return [{**row, "time": 0, "metrics": m} for row, m in zip(curve, measured, strict=True)]


def test_an_interrupted_trial_goes_on_to_the_same_numbers(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_S", 0.0)
    whole = tried(inputs, tmp_path / "whole", monkeypatch, 7)
    before = tried(inputs, tmp_path / "parts", monkeypatch, 3)
    after = tried(inputs, tmp_path / "parts", monkeypatch, 7)
    assert len(whole) == 6 and before[:2] + after == whole
    logs = [metrics_log.read(tmp_path / name / metrics_log.FILE)[0] for name in ("whole", "parts")]
    curves = [metrics_log.curve(log, "validate") for log in logs]
    assert plain(curves[0]) == plain(curves[1])
    found, _ = metrics_log.read(tmp_path / "parts" / metrics_log.FILE)
    assert [row["step"] for row in found if row["kind"] == metrics_log.RESUMED] == [2]


def test_a_trial_that_diverges_fails_and_says_what_to_change(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(trials.tune, "report", lambda metrics: None)
    config = ClassifierConfig(epochs=6, lr=1e30)
    with pytest.raises(NonFinite, match="diverged: loss: found nan .* lower the regularizer's"):
        problem(AlignmentTune()).train(config, inputs, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_search_on_digits(tmp_path, monkeypatch, ebflow):
    """One trial does as plain training does, another has to lose accuracy, and is ended."""
    seed = next(s for s in range(100) if min(proposed(s)) < 1e-5 and max(proposed(s)) > 0.3)
    store = Store(tmp_path)
    words = ("tune", "gradient-alignment", *WORDS, "--seed", seed)
    process = store.start(*words)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, ""), err + out
    output = tmp_path / "runs" / "tune" / "alignment"
    summary = json.loads((output / "summary.json").read_text())
    assert [t["changes"].get("regularizer.weight") for t in summary["tried"]][1:] == proposed(seed)
    ended = [trial for trial in summary["tried"] if trial["state"] == "pruned"]
    assert ended and len(ended) < TRIALS
    for trial in ended:
        assert trial["reason"].startswith("accuracy 0.")
        assert trial["scores"]["accuracy"] > 0 and trial["scores"]["A3"] > -1
    for setting in summary["settings"]:
        for split in ("select", "test"):
            for goal in ("A3", "accuracy"):
                assert set(setting["scores"][split][goal]) == {str(seed + 1), str(seed + 2)}
    assert summary["verdict"] in out and 0 < summary["cpus_busy"] <= cpus()
    assert {path.stem for path in (output / "figures").iterdir()} >= {
        "settings", "settings-accuracy", "history", "pareto",
    }  # fmt: skip
    assert_runs(store, summary, seed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBFLOW_HOME", str(store.home))
    assert_accepted(ebflow, output / "best.yaml")
    again = ebflow(*words, "--dry-run")
    stages = "prepare flow reference classify search score verdict".split()
    assert [line.split() for line in again.out[-7:]] == [[stage, "cached"] for stage in stages]


def assert_runs(store, summary, seed):
    client = mlflow.MlflowClient(f"sqlite:///{store.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tune-gradient-alignment").experiment_id
    found = client.search_runs([experiment], max_results=500)
    trials = {run.data.tags["ebflow.trial"]: run for run in found
              if "ebflow.trial" in run.data.tags}  # fmt: skip
    assert len(trials) == TRIALS
    for trial in summary["tried"]:
        run = trials[str(trial["number"])]
        assert run.info.run_name.startswith(f"trial {trial['number']:03d} score taylor_cv λ ")
        assert run.data.metrics["val/A3"] == trial["scores"]["A3"]
        assert run.info.status == {"finished": "FINISHED", "pruned": "KILLED"}[trial["state"]]
    names = {run.info.run_name for run in found}
    assert {f"flow · class {k}, seed {seed}" for k in (0, 9)} <= names
    assert any(name.startswith("classify · base, seed ") for name in names)


def assert_accepted(ebflow, path):
    config = yaml.safe_load(path.read_text())
    assert config["custom"]["name"] == "score" and config["name"] == "alignment-best"
    result = ebflow("run", "gradient-alignment", "--config", path, "--dry-run")
    assert result.code == 0, result.err
    assert yaml.safe_load(result.text.partition("\n")[2].partition("prepare ")[0]) == config
