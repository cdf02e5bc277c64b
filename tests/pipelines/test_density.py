"""The density pipeline on real data, a real Ray and a real MLflow store."""

import html
import json
import math
import re
from fnmatch import fnmatch
from html import escape
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.distributions import Normal

from ebflow.checkpoint import load
from ebflow.evaluation import log_probs
from ebflow.preprocessing import Preprocessing, density
from pipelines.data.dataset import Dataset
from pipelines.density.evaluate import LOG_PROBS
from pipelines.engine import runner
from pipelines.training.preprocessing import GAUSSIAN, MIXTURE

from .conftest import NO_RAY, QUICK, Store

STAGES = ("prepare", "preprocess", "train", "evaluate", "report")

KEYS = {
    "test/nll", "test/nll_se", "test/bpd", "best/val_nll", "baseline/gaussian_nll",
    "baseline/mixture_nll", "baseline/mixture_nll_se", "baseline/mixture_bpd",
    "baseline/mixture_val_nll", "baseline/mixture_components", "best/val_gain_over_mixture",
    "train/steps_per_s", "train/steps", "train/best_step", "time/startup_s", "time/total_s",
    "time/share_outside_step", "time/share_data", "time/share_report", "time/share_validate",
    "time/share_checkpoint", "mlflow_run_id", "checkpoint", "report", "figures", "config",
    "seeds", "artefacts", "command", "verdict", "name", "method", "splits", "warnings", "fit",
    "val/rows",
}  # fmt: skip


def statuses(printed):
    """Returns which stages ran, from the line that tells it."""
    line = next(line for line in printed.splitlines() if line.startswith("stages"))
    return dict(re.findall(r"(\w+) (ran|cached)", line))


def test_the_table_and_where_all_lies_is_printed(digits):
    summary = digits.summary()
    assert statuses(digits.printed) == dict.fromkeys(STAGES, "ran")
    for key in ("test/nll", "test/nll_se", "baseline/gaussian_nll", "baseline/mixture_nll"):
        assert f"{summary[key]:.2f}" in digits.printed
    for text in (summary["checkpoint"], summary["report"], "steps/s", "mlflow ui"):
        assert text in digits.printed


def test_the_flow_is_better_than_a_gaussian(digits):
    summary = digits.summary()
    assert summary["test/nll"] < summary["baseline/gaussian_nll"] - 1
    assert summary["best/val_nll"] < summary["baseline/gaussian_val_nll"] - 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_default_recipe_is_three_nats_better(tmp_path, seed):
    store = Store(tmp_path)
    store.run("run", "density", "--seed", seed)
    summary = store.summary()
    assert summary["test/nll"] < summary["baseline/gaussian_nll"] - 3


def test_the_output_folder(digits):
    output = digits.root / "runs" / "density" / "digits"
    names = {path.name for path in output.iterdir()}
    files = {"summary.json", "report.html", "figures", "checkpoint", "config.yaml"}
    assert names == {*files, ".redun"}
    assert {path.suffix for path in (output / "figures").iterdir()} == {".png"}
    checkpoint = {path.name for path in (output / "checkpoint").iterdir()}
    assert checkpoint >= {"model.safetensors", "ema.safetensors", "state.json"}


def test_the_summary(digits):
    summary = digits.summary()
    assert summary.keys() >= KEYS
    assert summary["config"] == yaml.safe_load(
        (digits.root / "runs" / "density" / "digits" / "config.yaml").read_text()
    )
    shares = [value for key, value in summary.items() if key.startswith("time/share_")]
    outside = summary["time/share_outside_step"]
    assert sum(shares) - outside == pytest.approx(1)
    assert summary["time/share_step"] == pytest.approx(1 - outside)
    assert summary["seeds"] == {"data": 0, "training": 0}


@pytest.mark.parametrize(
    ("name", "gain"), [("gaussian", "test/gain"), ("mixture", "test/gain_over_mixture")]
)
def test_the_difference_is_paired(digits, name, gain):
    summary = digits.summary()
    expected = summary[f"baseline/{name}_nll"] - summary["test/nll"]
    assert summary[gain] == pytest.approx(expected, abs=1e-3)
    assert 0 < summary[f"{gain}_se"] < summary["test/nll_se"]
    assert f"{-expected:+.2f} ± {summary[f'{gain}_se']:.2f}" in digits.printed


def test_the_mixture_is_scikit_learns_behind_the_chain(digits):
    """Its likelihood, from the rows' latents and the file's weights, means and covariances."""
    summary, preprocessed = digits.summary(), Path(digits.summary()["artefacts"]["preprocess"])
    mixture, chain = (
        Preprocessing.load(preprocessed / MIXTURE).base,
        Preprocessing.load(preprocessed / GAUSSIAN),
    )
    split = Dataset(summary["artefacts"]["prepare"]).split("test")
    whitener = density(chain)
    y = whitener.preprocess(split.tensor())
    log_det = log_probs(whitener, split) - Normal(0.0, 1.0).log_prob(y).sum(1)
    kind = "full" if mixture.full else "diag"
    model = SklearnMixture(len(mixture.weights), covariance_type=kind)
    model.weights_, model.means_ = mixture.weights.numpy(), mixture.means.numpy()
    precisions = mixture.covariances.inverse() if mixture.full else 1 / mixture.covariances
    model.precisions_cholesky_ = (
        torch.linalg.cholesky(precisions) if mixture.full else precisions.sqrt()
    ).numpy()
    found = model.score_samples(y.numpy()) + log_det.numpy()
    assert -found.mean() == pytest.approx(summary["baseline/mixture_nll"], abs=1e-6)
    assert summary["baseline/mixture_components"] == len(mixture.weights)


def test_every_rows_likelihood_is_kept(digits):
    summary = digits.summary()
    with np.load(Path(summary["artefacts"]["evaluate"]) / LOG_PROBS) as found:
        assert {name: len(rows) for name, rows in found.items()} == {
            "test": 250,
            "validation": 250,
            "train": 1297,
        }
        assert -found["test"].mean() == pytest.approx(summary["test/nll"], abs=1e-9)
        assert -found["validation"].mean() == pytest.approx(summary["best/val_nll"], abs=1e-9)


def test_every_key_of_the_summary_is_documented(digits):
    page = Path(__file__).parents[2] / "docs" / "reference" / "summary.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    known = [key for row in rows for key in re.findall("`([^`]+)`", row.split("|")[1])]
    summary = digits.summary()
    assert not [key for key in summary if not any(fnmatch(key, name) for name in known)]


def test_the_store_keeps_no_work_of_finished_stages(digits):
    assert not [path for path in (digits.home / "work").rglob("*") if path.is_file()]


def test_a_second_run_is_cached_and_needs_no_ray(digits):
    before = runs(digits)
    printed = digits.run("run", "density", *QUICK, **NO_RAY)
    assert statuses(printed) == dict.fromkeys(STAGES, "cached")
    assert runs(digits) == before
    assert digits.summary()["mlflow_run_id"] in before


@pytest.fixture
def repeated(ebflow, monkeypatch):
    """Runs the command of a finished run again on its store, in this process: what it prints."""

    def run(store, *words, options=QUICK):
        monkeypatch.chdir(store.root)
        monkeypatch.setenv("EBFLOW_HOME", str(store.home))
        monkeypatch.setattr(runner, "start", None)
        result = ebflow("run", "density", *options, *words).quiet()
        return result.text

    return run


@pytest.fixture
def planned(repeated):
    """Which stages a command would run on a store, by a dry run."""

    def plan(store, *words):
        printed = repeated(store, *words, "--dry-run", options=())
        return dict(re.findall(r"^(\w+) +(?:\d+ )?(run|cached)\b", printed, re.M))

    return plan


def test_the_configuration_it_left_reproduces_it(digits, planned):
    config = digits.root / "runs" / "density" / "digits" / "config.yaml"
    assert planned(digits, "--config", config) == dict.fromkeys(STAGES, "cached")


PLANS = {
    "nothing": ((), ()),
    "a name": (("--name", "other"), ()),
    "restarts": (("--cluster.max-failures", "9"), ()),
    "samples": (("--evaluate.samples", "2"), ("evaluate", "report")),
    "a rate": (("--train.lr", "0.01"), ("train", "evaluate", "report")),
    "workers": (("--workers", "2"), ("train", "evaluate", "report")),
    "a margin": (("--preprocess.logit", "1e-3"), STAGES[1:]),
    "the split": (("--data.seed", "1"), STAGES),
    "force": (("--force",), STAGES),
}


@pytest.mark.parametrize("words, again", PLANS.values(), ids=PLANS)
def test_what_a_changed_option_would_run(digits, planned, words, again):
    expected = {stage: "run" if stage in again else "cached" for stage in STAGES}
    assert planned(digits, *QUICK, *words) == expected


DAMAGES = {
    "checkpoint": ("train", "checkpoint/ema.safetensors", ("train", "evaluate", "report")),
    "data": ("prepare", "manifest.json", STAGES),
    "preprocessing": ("preprocess", "preprocessing.safetensors", STAGES[1:]),
    "report": ("report", "report.html", ("report",)),
}


@pytest.mark.parametrize("stage, name, again", DAMAGES.values(), ids=DAMAGES)
def test_damaged_artefacts_are_noticed(digits, planned, tmp_path, stage, name, again):
    store = digits.copy(tmp_path / "copy")
    path = next((store.home / "artefacts" / stage).glob(f"*/{name}"))
    path.write_bytes(path.read_bytes()[:-1])
    expected = {stage: "run" if stage in again else "cached" for stage in STAGES}
    assert planned(store, *QUICK) == expected


def runs(store):
    """Returns the runs in MLflow by id."""
    client = mlflow.MlflowClient(f"sqlite:///{store.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("density").experiment_id
    return {run.info.run_id: run.to_dictionary() for run in client.search_runs([experiment])}


def test_the_report_needs_nothing_else(digits):
    page = (digits.root / "runs" / "density" / "digits" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)\s*=\s*\"(?!data:)", page)
    assert f"{digits.summary()['test/nll']:.2f}" in page
    assert f"<code>{escape(digits.summary()['command'])}</code>" in page


def test_another_name_gets_its_own_run_from_what_is_there(digits, repeated, tmp_path):
    store = digits.copy(tmp_path / "copy")
    before = runs(store)
    output = tmp_path / "elsewhere"
    printed = repeated(store, "--name", "other", "--output", output)
    assert statuses(printed) == dict.fromkeys(STAGES, "cached")
    summary = json.loads((output / "summary.json").read_text())
    made = runs(store)
    assert set(made) - set(before) == {summary["mlflow_run_id"]}
    assert made[summary["mlflow_run_id"]]["data"]["metrics"]["test/nll"] == summary["test/nll"]


def test_a_run_that_was_killed_while_it_was_tracked_is_tracked_anew(digits, repeated, tmp_path):
    store = digits.copy(tmp_path / "copy")
    client = mlflow.MlflowClient(f"sqlite:///{store.home / 'mlflow.db'}")
    killed = store.summary()["mlflow_run_id"]
    client.update_run(killed, status="RUNNING")
    repeated(store)
    assert store.summary()["mlflow_run_id"] != killed
    ended = {run_id: run["info"]["status"] for run_id, run in runs(store).items()}
    assert ended[killed] == "KILLED"
    assert ended[store.summary()["mlflow_run_id"]] == "FINISHED"


def test_a_lost_tracking_store_is_made_again(digits, repeated, tmp_path):
    store = digits.copy(tmp_path / "copy")
    (store.home / "mlflow.db").unlink()
    repeated(store)
    assert set(runs(store)) == {store.summary()["mlflow_run_id"]}


def described(path, tabular_file):
    """Writes the columns of numbers with the unit of the first, and one that names splits."""
    data = pq.read_table(tabular_file)
    data = data.set_column(0, data.field(0).with_metadata({"unit": "mm"}), data[0])
    names = ["train"] * 469 + ["test"] * 100
    pq.write_table(data.append_column("split", pa.array(names)), path / tabular_file.name)
    return path / tabular_file.name


@pytest.mark.system
def test_columns_of_numbers(home, ebflow, without_ray, tmp_path, tabular_file):
    words = ("--data.source", described(tmp_path, tabular_file), "--data.held-out", "last")
    short = ("--train.steps", "60", "--train.validate-every", "20", "--train.log-every", "20")
    ended = ebflow("run", "density", *words, *short, "--rival", "None").quiet()
    printed, folder = ended.text, Path("runs/density/breast-cancer")
    summary = json.loads((folder / "summary.json").read_text())
    assert statuses(printed) == dict.fromkeys(STAGES, "ran")
    assert summary["config"]["preprocess"]["logit"] is None
    assert summary["baseline/gaussian_shrinkage"] == 0
    assert all(math.isfinite(summary[name]) for name in ("test/nll", "baseline/gaussian_nll"))
    assert "mean_radius" in summary["columns"]["tails"]
    assignment = (
        "column split names 469 train, 100 test rows; validation rows are the last of the train"
    )
    assert assignment in summary["splits"] and assignment in " ".join(printed.split())
    found = load(folder).columns
    assert found.names == pq.read_schema(tabular_file).names
    columns = [(column.dtype, column.unit) for column in found]
    assert columns == [("double", "mm")] + [("double", None)] * 9
    doubts = [text for text in summary["warnings"] if "the flow is worse than a" in text]
    worst = min(
        (summary[f"test/{gain}"], -summary[f"test/{gain}_se"])
        for gain in ("gain", "gain_over_mixture")
    )
    assert bool(doubts) == (worst[0] < worst[1])
    page = (folder / "report.html").read_text()
    for text in summary["warnings"]:
        assert f"{text}\n" in printed
        assert html.unescape(page).index(text) < html.unescape(page).index("<table>")
    assert summary["fit"].keys() >= {"lines", "column shapes", "pair trends"}
    assert re.search(r">mean_\w+ = [\d.]+: expected ", page), "reasons of the least likely rows"
    assert "C2ST" in page and "nearer to a training row" in page


@pytest.mark.system
def test_the_better_of_two_flows_is_evaluated(home, ebflow, without_ray, tmp_path):
    """Twelve clusters in 24 columns: a mixture is far better than a short training."""
    noise = np.random.default_rng(0)
    rows = 8 * noise.normal(size=(12, 24))[noise.integers(12, size=900)]
    rows += noise.normal(size=rows.shape)
    table = {f"x{k}": column for k, column in enumerate(rows.T)}
    counts = pa.array(noise.integers(10, size=900))
    pq.write_table(pa.table({**table, "count": counts}), tmp_path / "clusters.parquet")
    words = ("--data.source", tmp_path / "clusters.parquet", "--train.steps", 20)
    ended = ebflow("run", "density", *words).quiet()
    assert statuses(ended.text)["choose"] == "ran"
    folder = Path("runs/density/clusters")
    summary = strict(folder / "summary.json")
    assert load(folder / "checkpoint").spec["architecture"] == "dense"
    assert summary["method"] == "lazy_ml on dense above a mixture of Gaussians"
    line = summary["facts"]["chosen"]
    pattern = r"(.+) \((.+)\) before (.+) \((.+)\), by the NLL of 90 validation rows"
    found = re.fullmatch(pattern, line)
    assert found[1] == summary["method"] and found[3] == "lazy_ml on autoregressive"
    assert float(found[2]) == pytest.approx(summary["best/val_nll"], abs=0.01)
    assert float(found[4]) > float(found[2]) + 5
    assert "count" in summary["columns"]["grids"] and not summary["columns"]["exact"]
    again = ebflow("run", "density", *words)
    assert "choose cached" in again.text and "2 cached" in again.text


def strict(path):
    """Reads JSON as other readers than Python's do, which know no NaN."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.system
def test_a_failed_report_leaves_the_checkpoint(home, ebflow, without_ray, monkeypatch, tmp_path):
    def failed(config, *, run, **inputs):
        raise RuntimeError("no font")

    words, folder = ("run", "density", "--train.steps", 20), Path("runs/density/digits")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.density.report.report", failed)
        result = ebflow(*words)
    assert result.code == 1 and "no font" in result.err[0]
    assert {path.name for path in folder.iterdir()} >= {"checkpoint", "config.yaml"}
    assert not (folder / "report.html").exists()
    ebflow("score", folder, "digits", "--output", tmp_path / "s.parquet").quiet()


@pytest.mark.system
def test_over_one_test_row_there_is_no_standard_error(home, ebflow, without_ray):
    given = ("--data.label", "label", "--data.context", "label", "--data.test", 1)
    short = ("--train.steps", 20, "--train.validate-every", 20, "--train.log-every", 20)
    ended = ebflow("run", "density", *given, *short).quiet()
    summary = strict(Path("runs/density/digits/summary.json"))
    missing = {name for name, value in summary.items() if value is None}
    assert missing == {n for n in summary if n.endswith("_se") and "val_" not in n} != set()
    page = Path("runs/density/digits/report.html").read_text()
    for text in (ended.text, re.sub('base64,[^"]*', "", page)):
        results = " ".join(text.split()).replace(summary["method"], "")  # which names options
        assert not re.search(r"\b(nan|None)\b", results)
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    assert not missing & client.get_run(summary["mlflow_run_id"]).data.metrics.keys()


@pytest.mark.slow
def test_digits_given_their_class_are_likelier_than_by_a_regression(tmp_path):
    store = Store(tmp_path)
    store.run("run", "density", "--data.label", "label", "--data.context", "label", *QUICK)
    summary = store.summary()
    assert summary["test/nll"] < summary["baseline/gaussian_nll"] - 1
