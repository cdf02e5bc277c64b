"""``ebflow export``, and its files in programs that cannot import ebflow."""

import io
import json
import logging
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import ebflow
from ebflow.bijections.activations import Elementwise
from ebflow.randomness import RowGenerator, uniform
from pipelines.errors import StageFailed
from pipelines.inference import exporting
from pipelines.inference.models import Model, checkpoint_folder

from .conftest import CONTEXT, NAMES

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="the extra `export` is not installed",
)
FORMATS = ["torch-export", pytest.param("onnx", marks=needs_onnx)]

ELSEWHERE = {
    "torch-export": """
about = {"ebflow.json": ""}
found = torch.export.load(path, extra_files=about).module()(**inputs).numpy()
about = about["ebflow.json"]
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path)
(found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
about = session.get_modelmeta().custom_metadata_map["ebflow"]
""",
}
PROGRAM = """
import sys
sys.modules["ebflow"] = None  # importing it raises
import json
import numpy as np
import torch
loads = json.loads(sys.argv[1])
for line in sys.stdin:
    kind, path, given, out = json.loads(line)
    inputs = {name: torch.from_numpy(value) for name, value in np.load(given).items()}
    scope = {"path": path, "inputs": inputs, "torch": torch}
    exec(loads[kind], scope)
    np.save(out, scope["found"])
    print(scope["about"], flush=True)
"""


@pytest.fixture(scope="module")
def program():
    """A program without ebflow that scores the files it is told."""
    words = [sys.executable, "-c", PROGRAM, json.dumps(ELSEWHERE)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, text=True) as started:
        yield started
        started.stdin.close()
    assert started.returncode == 0


def scored_elsewhere(program, folder, kind, inputs):
    """Loads a file in that program; returns log-densities and what the file says."""
    np.savez(folder / "given.npz", **{name: value.numpy() for name, value in inputs.items()})
    names = (f"flow{exporting.FORMATS[kind][0]}", "given.npz", "out.npy")
    request = [kind, *(str(folder / name) for name in names)]
    print(json.dumps(request), file=program.stdin, flush=True)
    about = json.loads(program.stdout.readline())
    return np.load(folder / "out.npy"), about


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", ["images", "a table given contexts"])
def test_a_file_scores_as_the_flow_does(
    request, kind, what, ebflow, tracking_home, tmp_path, program
):
    folder = request.getfixturevalue("image_model" if what == "images" else "conditional")
    output = tmp_path / f"flow{exporting.FORMATS[kind][0]}"
    done = ebflow("export", folder, "--format", kind, "--output", output)
    assert (done.code, done.err) == (0, [])
    assert [line.split()[0] for line in done.out] == ["takes", "checked", "written"]
    flow = Model("", checkpoint_folder(folder, "")).flow
    context = None if what == "images" else flow.context_mean.expand(1_000, -1).clone()
    x = flow(context).sample_tensor(
        1_000 if context is None else (), generator=RowGenerator(5, "rows")
    )
    x = x.to(flow.dtype)
    noise = uniform(x.shape, x, RowGenerator(6, "noise"))
    inputs = {"x": x, "context": context, "noise": noise}
    inputs = {name: value for name, value in inputs.items() if value is not None}
    expected = flow(context).log_prob(x, generator=RowGenerator(6, "noise")).detach().numpy()
    scores, about = scored_elsewhere(program, tmp_path, kind, inputs)
    assert scores.shape == (1_000,) and np.isfinite(expected).all()
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert about["inputs"] == list(inputs) and about["dtype"] == "float32"
    names = [
        [column["name"] for column in about.get(key, {}).get("columns", ())]
        for key in ("columns", "context")
    ]
    assert names == ([[], []] if what == "images" else [list(NAMES[:3]), list(CONTEXT)])
    assert not list(tmp_path.glob(".*"))


@needs_onnx
def test_onnx_tells_nothing_of_its_own(ebflow, conditional, tmp_path):
    """As of the torchvision that it misses."""
    talker, said = logging.getLogger("torch.onnx._internal.exporter._registration"), io.StringIO()
    talker.addHandler(handler := logging.StreamHandler(said))
    words = "--format", "onnx", "--output", tmp_path / "flow.onnx"
    assert ebflow("export", conditional, *words).code == 0
    talker.removeHandler(handler)
    assert said.getvalue() == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--format", "torch-export", "--output", "flow.onnx"],
            "expected a file that ends in .pt2",
        ),
        (["--format", "torch-export", "--output", "no/flow.pt2"], "expected one: make it"),
        (["--format", "pickle", "--output", "flow.pt2"], "torch-export"),
    ],
)
def test_refusals(ebflow, tracking_home, conditional, words, line):
    done = ebflow("export", conditional, *words)
    assert line in done.refusal


def test_onnx_names_what_is_not_installed(ebflow, conditional, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    words = "--format", "onnx", "--output", tmp_path / "flow.onnx"
    done = ebflow("export", conditional, *words)
    assert re.search(r"no onnx, onnxruntime, onnxscript, .*ebflow\[export\]", done.refusal)


class Rounding(Elementwise):
    """A layer that ONNX has no operator for."""

    def value(self, x):
        return x + 0 * x.nextafter(x)

    def derivatives(self, x, order):
        return (1 + 0 * x,) * order

    def inverse(self, y):
        return y


class Deciding(Rounding):
    """A layer that decides by its input."""

    def value(self, x):
        return 2 * x if x.sum() > 0 else x


def test_a_flow_that_cannot_be_traced_is_one_line(tmp_path):
    with pytest.raises(StageFailed, match="^the flow cannot be exported so: .+") as caught:
        written("torch-export", Deciding(), tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@needs_onnx
def test_a_missing_operator_is_named(tmp_path):
    with pytest.raises(StageFailed, match="operator prims.nextafter"):
        written("onnx", Rounding(), tmp_path)


def test_a_graph_that_gives_other_numbers_is_not_left(tmp_path, monkeypatch):
    def wrong(graph, about, path):
        path.write_text(about)
        return lambda given: given["x"].sum(1)

    monkeypatch.setitem(exporting.FORMATS, "torch-export", (".pt2", wrong))
    with pytest.raises(StageFailed, match="differ from the flow's by"):
        written("torch-export", Rounding(), tmp_path)
    assert not list(tmp_path.iterdir())


def written(kind, layer, folder):
    model = Model("m", folder)
    model.__dict__["flow"] = ebflow.Flow((3,), [layer])
    output = folder / f"flow{exporting.FORMATS[kind][0]}"
    exporting._exported(model, exporting.Export("m", kind, output))
