"""Files run no code, secrets stay where they are, and nothing listens beyond this machine."""

import ast
import contextlib
import hashlib
import json
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from ebflow.checkpoint import load, read
from ebflow.errors import BadInput
from pipelines import metrics_log, store
from pipelines.cli.submit import checkout
from pipelines.cluster import connection
from pipelines.config import Training
from pipelines.config.files import read as read_config
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.data.sources import find_source
from pipelines.training.checkpoints import save_training
from tests.pipelines.trainers import build
from tests.prepared import prepare

from .conftest import QUICK, Store
from .seals import sealed

SECRET = "hunter2-of-the-test"

# Names by which code is run that lies in a file
FORBIDDEN = {
    "cloudpickle", "dill", "eval", "exec", "joblib", "marshal", "pickle", "shelve",
    "full_load", "load_pickle", "read_pickle", "to_pickle", "torch.load", "torch.save",
    "unsafe_load", "weights_only", "yaml.load", "allow_pickle", "CPickle", "_pickle",
}  # fmt: skip


def names(node):
    """Yields the names that a piece of syntax uses: itself, its module, its keyword."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr if node.attr not in ("eval", "load", "save") else ""
        yield f"{getattr(node.value, 'id', '')}.{node.attr}"
    elif isinstance(node, ast.keyword):
        yield node.arg or ""
    elif isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield (node.module or "").partition(".")[0]
        yield from (alias.name for alias in node.names)


def used(source):
    return {name for node in ast.walk(ast.parse(source)) for name in names(node)} & FORBIDDEN


def test_no_code_of_ours_runs_what_lies_in_a_file():
    packages = [checkout() / name for name in ("ebflow", "pipelines", "tuning")]
    sources = [path for package in packages for path in package.rglob("*.py")]
    assert len(sources) > 100
    assert not {str(path): found for path in sources if (found := used(path.read_text()))}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "torch.load(x)", "np.load(x, allow_pickle=True)",
     "yaml.load(x)", "pd.read_pickle(x)", "exec(x)"],
)  # fmt: skip
def test_the_search_finds_what_it_is_for(source):
    assert used(source)


class Bomb:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def bomb(tmp_path):
    """The pickle; fails the test if it was loaded."""
    path = tmp_path / "loaded"
    yield pickle.dumps(Bomb(path))
    assert not path.exists()
    pickle.loads(pickle.dumps(Bomb(path)))
    assert path.exists()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The checkpoint of an untrained flow."""
    folder = tmp_path_factory.mktemp("written")
    prepare("digits", folder / "digits", rows=300, validation=50, test=50)
    training = build(Training(), Dataset(folder / "digits"))
    save_training(training, folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture
def checkpoint(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoint")


@pytest.mark.parametrize("name", ["model", "ema", "optimizer"])
def test_a_pickle_as_weights(name, bomb, checkpoint):
    """With the checksum that it ought to have."""
    (checkpoint / f"{name}.safetensors").write_bytes(bomb)
    state = json.loads((checkpoint / "state.json").read_text())
    state["sha256"][name] = hashlib.sha256(bomb).hexdigest()
    (checkpoint / "state.json").write_text(json.dumps(sealed(state)))
    with pytest.raises(BadInput, match=f"{name}.safetensors: corrupt"):
        read(checkpoint)


def test_a_pickle_as_the_state(bomb, checkpoint):
    (checkpoint / "state.json").write_bytes(bomb)
    with pytest.raises(BadInput, match="state.json"):
        load(checkpoint)


@pytest.mark.parametrize("name", ["data.parquet", "folder/part.parquet", "photos/a.png"])
def test_a_pickle_as_data(name, bomb, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bomb)
    place = path if path.parent == tmp_path else path.parent
    with pytest.raises(BadInput, match=path.name):
        prepare(place, tmp_path / "prepared")


@pytest.mark.parametrize("name", ["manifest.json", "train-00000.parquet"])
def test_a_pickle_as_prepared_data(name, bomb, tmp_path):
    folder = tmp_path / "prepared"
    prepare("digits", folder, rows=60, validation=10, test=10)
    path = next(folder.glob(name.replace("00000", "*")))
    path.write_bytes(bomb)
    with pytest.raises(BadInput, match=path.name):
        next(Dataset(folder).split("train").batches(10))
    if name == "manifest.json":
        with pytest.raises(BadInput, match="manifest"):
            Manifest.load(folder)


@pytest.mark.parametrize("text", [None, "!!python/object/apply:os.system [touch {path}]\n"])
def test_a_pickle_or_a_call_as_the_configuration(text, bomb, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(bomb if text is None else text.format(path=tmp_path / "loaded").encode())
    with pytest.raises(BadInput, match="config.yaml"):
        read_config(path)


def test_a_pickle_in_the_store(bomb, home):
    store.artefact("train", "key").mkdir(parents=True)
    store.artefact("train", "key").with_suffix(".json").write_bytes(bomb)
    assert store.find("train", "key") is None


def test_a_pickle_as_rows(bomb, tmp_path):
    (tmp_path / metrics_log.FILE).write_bytes(bomb + b"\n")
    assert metrics_log.read(tmp_path / metrics_log.FILE) == []


def test_a_pickle_as_arrays(bomb, tmp_path):
    """numpy's own default: what stages read of each other's arrays has no objects."""
    (tmp_path / "arrays.npz").write_bytes(bomb)
    with pytest.raises(ValueError, match="pickled"):
        np.load(tmp_path / "arrays.npz")


def test_a_pickle_as_an_earlier_summary(bomb, home, ebflow):
    (output := Path("runs/density/digits")).mkdir(parents=True)
    (output / "summary.json").write_bytes(bomb)
    result = ebflow("run", "density", "--dry-run")
    assert not home.exists()
    assert "summary.json, which no run left, expected none" in result.refusal


@pytest.mark.slow
def test_pickles_in_place_of_all_that_a_run_left(bomb, digits, tmp_path):
    """Every file but databases; the run is made anew, with equal numbers."""
    again = digits.copy(tmp_path / "again")
    shutil.rmtree(again.root / "runs")
    left = [path for path in again.root.rglob("*") if path.is_file() and path.suffix != ".db"]
    assert {"state.json", "manifest.json", "metrics.jsonl"} <= {path.name for path in left}
    for path in left:
        path.write_bytes(bomb)
    again.run("run", "density", *QUICK)
    assert again.summary()["test/nll"] == digits.summary()["test/nll"]


def test_a_url_is_no_source_and_its_secrets_are_not_shown(home, ebflow):
    for place in (f"https://me:{SECRET}@host/x.parquet", f"s3://bucket/x.parquet?key={SECRET}"):
        result = ebflow("run", "density", "--data.source", place)
        assert result.code == 2 and not home.exists()
        assert "expected a path" in result.err[0] and SECRET not in result.err[0] + result.text
        with pytest.raises(BadInput) as caught:
            find_source(place).reader()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("place", ["s3://bucket/store", f"gs://me:{SECRET}@bucket/store"])
def test_a_url_is_no_store(place, home, ebflow, monkeypatch):
    monkeypatch.setenv("EBFLOW_HOME", place)
    for words in (("run", "density"), ("runs",)):
        result = ebflow(*words)
        assert "bucket/store, expected a folder. A bucket is named by" in result.refusal
        assert SECRET not in result.refusal
    assert not list(Path.cwd().iterdir())


def test_a_url_is_no_folder_of_results(home, ebflow):
    result = ebflow("run", "density", "--output", "s3://bucket/results")
    assert "--output: found s3:/bucket/results" in result.refusal


def test_nodes_are_told_no_secrets(monkeypatch):
    """Ray shows what it is told in its dashboard."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@mlflow:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "told")
    variables = connection._environment()
    assert variables["MLFLOW_EXPERIMENT_NAME"] == "told" and SECRET not in str(variables)


@pytest.mark.slow
def test_a_planted_secret_is_nowhere_after_a_run(server, tmp_path):
    """A password in the tracking URI, a token of Ray: in no file, page, parameter or tag."""
    here = Store(tmp_path / "here")
    here.root.mkdir()
    logs = tmp_path / "ray"
    words = ("run", "density", *QUICK, "--workers", "2")
    settings = {
        "MLFLOW_TRACKING_URI": server.uri.replace("//", f"//me:{SECRET}@"),
        "MLFLOW_TRACKING_PASSWORD": SECRET,
        "RAY_AUTH_TOKEN": SECRET.encode().hex(),
    }
    process = here.start(*words, **settings)
    while process.poll() is None:
        for folder in Path("/tmp").glob(f"{connection.PREFIX}{process.pid}-*"):
            with contextlib.suppress(shutil.Error, OSError):
                shutil.copytree(folder / "session_latest" / "logs", logs, dirs_exist_ok=True)
        time.sleep(2)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert list(logs.iterdir())
    printed = [out.encode(), err.encode()]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 40 and any(path.name == "server.db" for path in files)
    for secret in (SECRET, settings["RAY_AUTH_TOKEN"]):
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert not [text for text in printed if secret.encode() in text]
