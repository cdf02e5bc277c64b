"""The runs of a density pipeline in a real MLflow store."""

import re
from pathlib import Path

import mlflow
import numpy as np
import pytest

from ebflow.checkpoint import load
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest

from .conftest import QUICK
from .test_density import STAGES


@pytest.fixture(scope="module")
def tracked(digits):
    """The pipeline's run, its children by name, and the client."""
    client = mlflow.MlflowClient(f"sqlite:///{digits.home / 'mlflow.db'}")
    run = client.get_run(digits.summary()["mlflow_run_id"])
    parent = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    children = client.search_runs([run.info.experiment_id], parent)
    return client, run, {child.info.run_name: child for child in children}


def test_every_stage_is_a_finished_child_run(digits, tracked):
    _, run, children = tracked
    assert set(children) == set(STAGES)
    assert {r.info.status for r in (run, *children.values())} == {"FINISHED"}
    for stage, child in children.items():
        assert child.data.tags["ebflow.stage"] == stage
        assert digits.summary()["artefacts"][stage].endswith(child.data.tags["ebflow.key"])


def test_every_run_says_what_it_is_what_came_out_and_how_to_repeat_it(digits, tracked):
    _, run, children = tracked
    summary = digits.summary()
    again = f"```sh\n{summary['command']}\n```"
    assert (
        summary["command"] == f"cd {digits.root} && {digits.named} run density {' '.join(QUICK)}"
    )
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("An energy-based flow of **digits**, trained by lazy_ml on dense.")
    assert f"| flow | {summary['test/nll']:.2f} ± {summary['test/nll_se']:.2f} |" in note
    assert note.endswith(again)
    for stage, child in children.items():
        note = child.data.tags["mlflow.note.content"]
        assert note.startswith(f"Stage `{stage}`. From ") and note.endswith(again)


def test_the_run_is_named_and_tagged_by_what_it_is(tracked):
    _, run, children = tracked
    assert run.info.run_name == "digits · lazy_ml · dense-3"
    expected = {"name": "digits", "recipe": "digits", "data": "digits", "network": "dense-3",
                "objective": "lazy_ml", "seed": "0", "role": "pipeline"}  # fmt: skip
    assert {name: run.data.tags[f"ebflow.{name}"] for name in expected} == expected
    for one in (run, *children.values()):
        assert one.data.tags["ebflow.pipeline"] == "density"
        assert one.data.tags["mlflow.source.type"] == "LOCAL"


def test_parameters_and_final_metrics_are_tracked(digits, tracked):
    _, run, children = tracked
    assert run.data.params["train.steps"] == "300"
    assert run.data.params["objective.name"] == "lazy_ml"
    assert run.data.metrics["test/nll"] == digits.summary()["test/nll"]
    assert children["evaluate"].data.metrics["test/nll"] == digits.summary()["test/nll"]


def test_likelihoods_are_metrics_of_the_run_and_other_numbers_are_parameters(digits, tracked):
    _, run, _ = tracked
    names, summary = list(run.data.metrics), digits.summary()
    assert names[0] == "test/nll" and {name.split("/")[0] for name in names} == {"test", "best"}
    for name in ("baseline/gaussian_nll", "time/total_s", "train/best_step"):
        assert float(run.data.params[name]) == pytest.approx(summary[name])


def test_metrics_over_steps_are_tracked_each_once(tracked):
    client, _, children = tracked
    run_id = children["train"].info.run_id
    steps = {
        name: [metric.step for metric in client.get_metric_history(run_id, name)]
        for name in ("val/nll", "train/loss", "train/examples_per_s", "time/step_ms")
    }
    assert steps.pop("val/nll") == [0, 16, 32, 64, 100, 200, 300]
    for name, found in steps.items():
        assert found == list(range(20, 301, 20)), name


def test_all_runs_on_the_same_data_are_found_as_the_page_says(digits, tracked):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "mlflow.md").read_text()
    client, run, children = tracked
    inputs = [one.inputs.dataset_inputs[0].dataset for one in (run, *children.values())]
    assert {dataset.name for dataset in inputs} == {"digits"}
    digest = Manifest.load(digits.summary()["artefacts"]["prepare"]).digest[:36]
    query = re.search(r"^(dataset\.digest = ')\w{36}'$", page, re.M)[1] + f"{digest}'"
    found = client.search_runs([run.info.experiment_id], query)
    assert {same.info.run_id for same in found} >= {
        run.info.run_id, *(child.info.run_id for child in children.values())
    }  # fmt: skip


def test_the_files_are_artefacts(tracked):
    client, run, children = tracked
    kept = client.list_artifacts(children["train"].info.run_id, "checkpoint")
    assert {item.path for item in kept} >= {"checkpoint/ema.safetensors", "checkpoint/state.json"}
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"summary.json", "report.html", "config.yaml", "figures"}
    figures = {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    shown = ("training", "samples", "likelihood")
    assert figures == {f"figures/{name}.png" for name in shown}


def test_the_model_predicts_log_densities_in_nats(digits, tracked, monkeypatch):
    client, run, _ = tracked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    uri = f"models:/{run.outputs.model_outputs[0].model_id}"
    model = mlflow.pyfunc.load_model(uri)
    x = Dataset(digits.summary()["artefacts"]["prepare"]).split("test").tensor()
    found = model.predict(x.numpy())
    assert found.shape == (250,) and found.dtype == np.float64
    assert -found.mean() == pytest.approx(digits.summary()["test/nll"], abs=1e-3)
    expected = load(digits.summary()["checkpoint"]).log_prob(x).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert model.metadata.signature is not None
    assert mlflow.models.get_model_info(uri).saved_input_example_info is not None
