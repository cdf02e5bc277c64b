"""Small real data in files, a store of one's own, the command line in this process."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import cli


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A store of the test's own; the test runs in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EBFLOW_HOME", str(tmp_path / "store"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "store"


@pytest.fixture(scope="session")
def tabular_file(tmp_path_factory):
    """Breast cancer measurements, bundled with scikit-learn, as Parquet."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    names = [name.replace(" ", "_") for name in found.feature_names[:10]]
    path = tmp_path_factory.mktemp("tabular") / "breast-cancer.parquet"
    pq.write_table(pa.table(dict(zip(names, found.data[:, :10].T, strict=True))), path)
    return path


@pytest.fixture(scope="session")
def image_file(tmp_path_factory):
    """Digits as a file of the user's: one fixed-size list of uint8, the shape in the metadata."""
    from sklearn.datasets import load_digits

    images = load_digits().images.astype(np.uint8)
    column = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 64)
    metadata = {"shape": json.dumps([8, 8]), "levels": json.dumps(17)}
    path = tmp_path_factory.mktemp("images") / "my-digits.parquet"
    pq.write_table(pa.table({"image": column}).replace_schema_metadata(metadata), path)
    return path


@pytest.fixture
def ebflow(capsys):
    """Runs a command in this process: code, lines of stdout, lines of stderr."""

    def run(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out.splitlines(), err=err.splitlines())

    return run
