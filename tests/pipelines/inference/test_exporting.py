"""``ebflow export``, and its files in a program that cannot import ebflow."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

import ebflow
from ebflow.bijections.activations import Elementwise
from ebflow.randomness import RowGenerator, uniform
from pipelines.errors import StageFailed
from pipelines.inference import exporting
from pipelines.inference.models import Model, load

from .conftest import CONTEXT, NAMES

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="the extra `export` is not installed",
)
PROGRAM = """
import sys
sys.modules["ebflow"] = None  # importing it raises
import numpy as np
import onnxruntime
path, inputs, out = sys.argv[1:]
session = onnxruntime.InferenceSession(path)
(log_prob,) = session.run(None, dict(np.load(inputs)))
np.save(out, log_prob)
print(session.get_modelmeta().custom_metadata_map["ebflow"])
"""


@pytest.mark.system
@needs_onnx
@pytest.mark.parametrize("kind", ["images", "a table given contexts"])
def test_a_file_scores_as_the_flow_does(request, kind, ebflow, tracking_home, tmp_path):
    folder = request.getfixturevalue("image_model" if kind == "images" else "conditional")
    output = tmp_path / "flow.onnx"
    done = ebflow("export", folder, "--output", output)
    assert (done.code, done.err) == (0, [])
    assert [line.split()[0] for line in done.out] == ["takes", "checked", "written"]
    flow = load(str(folder)).flow
    context = None if kind == "images" else flow.context_mean.expand(1_000, -1).clone()
    x = flow(context).sample_tensor(
        1_000 if context is None else (), generator=RowGenerator(5, "rows")
    )
    x = x.to(flow.dtype)
    noise = uniform(x.shape, x, RowGenerator(6, "noise"))
    inputs = {"x": x, "context": context, "noise": noise}
    inputs = {name: value.numpy() for name, value in inputs.items() if value is not None}
    expected = flow(context).log_prob(x, generator=RowGenerator(6, "noise")).detach().numpy()
    np.savez(tmp_path / "inputs.npz", **inputs)
    files = (output, tmp_path / "inputs.npz", tmp_path / "out.npy")
    words = [sys.executable, "-c", PROGRAM, *map(str, files)]
    about = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    scores = np.load(tmp_path / "out.npy")
    assert scores.shape == (1_000,) and np.isfinite(expected).all()
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert about["inputs"] == list(inputs) and about["dtype"] == "float32"
    names = [
        [column["name"] for column in about.get(key, {}).get("columns", ())]
        for key in ("columns", "context")
    ]
    assert names == ([[], []] if kind == "images" else [list(NAMES[:3]), list(CONTEXT)])
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("output", "line"),
    [("flow.pt2", "a file that ends in .onnx"), ("no/flow.onnx", "expected one: make it")],
)
def test_a_bad_output_is_one_line(ebflow, tracking_home, conditional, output, line):
    assert line in ebflow("export", conditional, "--output", output).refusal


def test_a_missing_package_is_one_line(ebflow, conditional, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    done = ebflow("export", conditional, "--output", tmp_path / "flow.onnx")
    assert re.search(r"no onnxruntime, onnxscript, .*ebflow\[export\]", done.refusal)


def test_a_machine_without_a_store_gets_none(home, ebflow, monkeypatch):
    monkeypatch.setattr(exporting, "load", id)
    monkeypatch.setattr(exporting, "exported", lambda *_: "")
    assert ebflow("export", "flow", "--output", "flow.onnx").code == 0
    assert not home.exists()


class Deciding(Elementwise):
    """A layer that decides by its input."""

    def value(self, x):
        return 2 * x if x.sum() > 0 else x

    def derivatives(self, x, order):
        return (1 + 0 * x,) * order

    def inverse(self, y):
        return y


class Rounding(Deciding):
    """A layer that ONNX has no operator for."""

    def value(self, x):
        return x + 0 * x.nextafter(x)


@needs_onnx
@pytest.mark.parametrize("layer", [Deciding(), Rounding()])
def test_a_flow_that_no_graph_can_be_is_one_line(layer, tmp_path):
    with pytest.raises(StageFailed, match="^the flow cannot be exported: .+") as caught:
        exporting.exported(Model("m", ebflow.Flow((3,), [layer])), tmp_path / "flow.onnx")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@needs_onnx
def test_a_graph_of_other_numbers_is_not_left(tmp_path, monkeypatch):
    found = SimpleNamespace(max_abs_diff=3.0, max_rel_diff=0.01)
    monkeypatch.setattr(exporting, "verify_onnx_program", lambda *_, **__: [found])
    with pytest.raises(StageFailed, match="differ from the flow's by 0.01, expected"):
        model = Model("m", ebflow.architectures.dense((3,)))
        exporting.exported(model, tmp_path / "flow.onnx")
    assert not list(tmp_path.iterdir())
