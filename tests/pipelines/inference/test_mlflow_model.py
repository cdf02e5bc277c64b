"""The MLflow model of a flow, loaded as a user does."""

import re

import numpy as np
import pandas as pd
import pytest

import ebflow as library
from pipelines.data.sources import find_source
from pipelines.inference import rows as commands
from pipelines.inference.models import load
from pipelines.inference.tables import batches, match

from .conftest import NAMES, grouped, people, save_mlflow


@pytest.fixture(scope="module")
def loaded(model, tmp_path_factory):
    """The flow of people as an MLflow model."""
    return save_mlflow(model, tmp_path_factory.mktemp("mlflow") / "model")


@pytest.fixture(scope="module")
def rows():
    return people(40, seed=8).to_pandas()


@pytest.fixture
def expected(model, rows, tmp_path):
    """The scores of the rows by the command's own function."""
    rows.to_parquet(tmp_path / "rows.parquet")
    return scores(model, tmp_path / "rows.parquet", 40)


def scores(model, source, count):
    named = load(str(model))
    rows = next(batches(match(source, named)))
    return commands.scores(named, 0, rows)["log_prob"].to_numpy()[:count]


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


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.drop(columns=["weight"]), r"missing inputs \['weight'\]"),
    (lambda t: t.assign(weight="heavy"), "Incompatible input types for column weight"),
    (lambda t: t.assign(count=t["count"] + 0.5), "Incompatible input types for column count"),
    (lambda t: t.assign(weight=t.weight.where(t.index != 7)), "x, feature 1, row 7: found nan"),
    (lambda t: t.to_numpy(dtype=float), r"missing inputs \['height', "),
], ids=["missing", "text", "half", "nan", "array"])  # fmt: skip
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
    found = next(find_source("digits").reader().batches()).x[:5]
    expected = scores(image_model, "digits", 5)
    loaded = save_mlflow(image_model, tmp_path / "model")
    np.testing.assert_allclose(loaded.predict(found), expected, rtol=1e-6)
    with pytest.raises(Exception, match="shape"):
        loaded.predict(found[:, :63])


def test_contexts_are_columns(conditional, tmp_path):
    loaded = save_mlflow(conditional, tmp_path / "model")
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
    x, labels, _ = next(find_source("digits").reader(label="label").batches()).take(slice(5))
    expected = scores(class_model, "digits", 5)
    rows = pd.DataFrame({"image": list(x), "label": labels.astype(int)})
    loaded = save_mlflow(class_model, tmp_path / "model")
    np.testing.assert_allclose(loaded.predict(rows), expected, rtol=1e-6)
