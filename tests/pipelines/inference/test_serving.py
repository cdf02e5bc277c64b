"""The MLflow model of a flow, loaded as a user does, and behind MLflow's own server."""

import contextlib
import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request

import mlflow
import numpy as np
import pandas as pd
import pytest

import ebflow as library
from pipelines.inference.blocks import Question
from pipelines.inference.matching import match
from pipelines.inference.models import opened
from pipelines.inference.scoring import scores
from pipelines.inference.serving import samples
from pipelines.tracking.models import save_model

from ..conftest import Store
from ..nodes import free_port
from .conftest import NAMES, grouped, people


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """Where the flow of people is as an MLflow model."""
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    with opened(str(model)) as named:
        save_model(folder, named.folder, samples(named))
    return folder


@pytest.fixture(scope="module")
def loaded(saved):
    return mlflow.pyfunc.load_model(str(saved))


@pytest.fixture(scope="module")
def rows():
    return people(40, seed=8).to_pandas()


@pytest.fixture
def expected(model, rows, tmp_path):
    """The scores of the rows by the command's own function."""
    rows.to_parquet(tmp_path / "rows.parquet")
    with opened(str(model)) as named:
        asked = Question(named, str(tmp_path / "rows.parquet"), scores, {"seed": 0}, 100)
        return asked.block(0)["log_prob"].to_numpy()


def test_a_prediction_is_a_score(loaded, rows, expected):
    np.testing.assert_allclose(loaded.predict(rows), expected, rtol=1e-6)


def test_columns_are_found_by_name(loaded, rows):
    turned = rows[rows.columns[::-1]].assign(id="a text")
    np.testing.assert_array_equal(loaded.predict(turned), loaded.predict(rows))


def test_other_widths_of_numbers_are_taken(loaded, rows):
    double = rows.astype({"height": "float64", "count": "int32"})
    np.testing.assert_array_equal(loaded.predict(double), loaded.predict(rows))
    single = rows.astype({"weight": "float32"})
    np.testing.assert_allclose(loaded.predict(single), loaded.predict(rows), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["weight"]), r"missing inputs \['weight'\]"),
        (lambda t: t.assign(weight="heavy"), "Incompatible input types for column weight"),
        (lambda t: t.assign(count=t["count"] + 0.5), "Incompatible input types for column count"),
        (
            lambda t: t.assign(weight=t.weight.where(t.index != 7)),
            "x, feature 1, row 7: found nan",
        ),
        (lambda t: t.to_numpy(dtype=float), r"missing inputs \['height', "),
    ],
    ids=["missing", "text", "half", "nan", "array"],
)
def test_what_is_no_row_is_refused(loaded, rows, change, message):
    """MLflow's own refusals repeat the data; their last line says why."""
    with pytest.raises(Exception) as caught:
        loaded.predict(change(rows))
    assert re.search(message, str(caught.value).splitlines()[-1])


def test_the_signature_names_columns(loaded):
    inputs = loaded.metadata.signature.inputs
    assert inputs.input_names() == list(NAMES)
    kinds = [kind.name for kind in inputs.input_types()]
    assert kinds == ["double", "double", "long", "boolean"]


def test_images_are_arrays(image_model, tmp_path):
    with opened(str(image_model)) as named:
        save_model(tmp_path / "model", named.folder, samples(named))
        found = match("digits", named).window(0, 5).x
        expected = scores(named, match("digits", named), 0, 5, seed=0)["log_prob"].to_numpy()
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded.predict(found), expected, rtol=1e-6)
    with pytest.raises(Exception, match="shape"):
        loaded.predict(found[:, :63])


def test_contexts_are_columns(conditional, tmp_path):
    with opened(str(conditional)) as named:
        save_model(tmp_path / "model", named.folder, samples(named))
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    inputs = loaded.metadata.signature.inputs
    assert inputs.input_names() == ["height", "weight", "count", "group", "smoker"]
    assert [kind.name for kind in inputs.input_types()][3:] == ["string", "boolean"]
    rows = grouped(40, seed=8).to_pandas()
    expected = library.load(conditional).log_prob(rows).numpy()
    np.testing.assert_allclose(loaded.predict(rows[rows.columns[::-1]]), expected, rtol=1e-5)
    with pytest.raises(Exception, match=r"missing inputs \['group'\]"):
        loaded.predict(rows.drop(columns=["group"]))
    with pytest.raises(Exception, match="column 'group': found an unknown level"):
        loaded.predict(rows.assign(group="huge"))


def test_images_of_classes_are_a_column(class_model, tmp_path):
    with opened(str(class_model)) as named:
        save_model(tmp_path / "model", named.folder, samples(named))
        found = match("digits", named)
        expected = scores(named, found, 0, 5, seed=0)["log_prob"].to_numpy()
        x, labels, _ = found.window(0, 5)
    rows = pd.DataFrame({"image": list(x), "label": labels.astype(int)})
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded.predict(rows), expected, rtol=1e-6)


@pytest.mark.slow
def test_the_server_answers_as_the_command_does(model, rows, expected, tmp_path):
    """The command as it is typed: asked by name, refused where it should, ended by Ctrl-C."""
    store = Store(tmp_path)
    port = free_port()
    process = store.start("serve", model, "--port", port)
    try:
        _wait(process, port)
        turned = rows[rows.columns[::-1]].to_dict("split")
        body = {"dataframe_split": {key: turned[key] for key in ("columns", "data")}}
        found = json.load(_post(port, body))["predictions"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        bad = {"dataframe_split": {"columns": ["height"], "data": [[1.7]]}}
        with pytest.raises(urllib.error.HTTPError) as caught:
            _post(port, bad)
        assert caught.value.code == 400 and b"weight" in caught.value.read()
        body["dataframe_split"]["data"][1][-1] = None
        with pytest.raises(urllib.error.HTTPError) as caught:
            _post(port, body)
        told = caught.value.read()
        assert caught.value.code == 400 and b"row 1, feature 0: found nan" in told
        assert b"Traceback" not in told
    finally:
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "") and f"http://127.0.0.1:{port}/invocations" in out
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1)


def _wait(process, port):
    while process.poll() is None:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/ping").close()
        time.sleep(0.2)
    raise AssertionError(process.communicate())


def _post(port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    return urllib.request.urlopen(request)


@pytest.mark.parametrize(
    ("words", "message"),
    [(("none",), "MODEL: found 'none'"), (("none", "--port", "0"), "--port: found 0, expected 1")],
)
def test_bad_words_are_one_line(ebflow, home, words, message):
    result = ebflow("serve", *words)
    assert message in result.refusal
    assert not home.exists()
