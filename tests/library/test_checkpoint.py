"""Checkpoints: whole or not at all, readable by anyone, damaged ones told in one line."""

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch

from ebflow import __version__
from ebflow.architectures import ARCHITECTURES
from ebflow.bases import Base
from ebflow.bijections import Dense, MonotoneSpline
from ebflow.checkpoint import Checkpoint, check, load, read, save, seal, write
from ebflow.errors import BadInput
from ebflow.fitting import fit
from ebflow.flow import Flow
from ebflow.tables.detect import detect_columns
from pipelines.training.checkpoints import resume, save_training
from tests.pipelines.training.cases import trainer

from .bijections.cases import seeded
from .flows import FLOWS, at, contexts

FILES = ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"]


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A short training in float64 and its checkpoint."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    training = trainer(digits, net=dict(depth=3, residual=True))
    list(training.run())
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    save_training(training, folder)
    torch.set_default_dtype(before)
    return training, folder


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the checkpoint to damage."""
    folder = tmp_path / "checkpoint"
    write(folder, read(trained[1]))
    return folder


def test_loaded_flow_has_the_averaged_weights(digits, trained):
    training, folder = trained
    rows, flow, expected = digits.split("test").tensor(), load(folder), training.averaged
    with torch.no_grad():
        assert torch.equal(flow.log_prob(rows), expected.log_prob(rows))
        samples = flow.sample(3, generator=seeded())
        assert torch.equal(samples, expected.sample(3, generator=seeded()))
    assert not flow.training and flow.n_preprocessing == training.flow.n_preprocessing


SCRIPT = """
import sys, torch
from ebflow.checkpoint import load
from pipelines.data.dataset import Dataset
flow = load(sys.argv[1])
rows = Dataset(sys.argv[2]).split("test").tensor()
print(repr(float(flow.log_prob(rows).mean())), flow.dtype)
"""


@pytest.mark.system
def test_a_fresh_process_gets_the_same_likelihood(digits, trained):
    training, folder = trained
    with torch.no_grad():
        expected = float(training.averaged.log_prob(digits.split("test").tensor()).mean())
    printed = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(digits.folder)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout.split()  # fmt: skip
    assert (
        float(printed[0]) == pytest.approx(expected, rel=1e-14) and printed[1] == "torch.float64"
    )


def one_line(folder, call=load):
    """Returns the one-line message of a refused checkpoint, and checks that it names a path."""
    with pytest.raises(BadInput) as error:
        call(folder)
    message = str(error.value)
    assert "\n" not in message and str(folder) in message
    return message


DAMAGES = {
    **{
        f"{share} of it": lambda data, share=share: data[: int(share * len(data))]
        for share in (0.0, 0.01, 0.5, 0.999)
    },
    "garbage": lambda data: bytes(range(256)) * 40,
    "nothing": None,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_told(copied, name, damage):
    path = copied / name
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert name in one_line(copied, read)


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "file"])
def test_what_is_no_checkpoint_is_told(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "empty folder":
        path.mkdir()
    if kind == "file":
        path.write_text("no checkpoint")
    one_line(path)


def changed(copied, change):
    """Applies a change to the JSON state."""
    path = copied / "state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(seal(state)))
    return copied


CHANGES = {
    "no flow": lambda s: s.pop("flow"),
    "flow is a number": lambda s: s.update(flow=3),
    "flow is null": lambda s: s.update(flow=None),
    "unknown architecture": lambda s: s["flow"].update(architecture="sparse"),
    "no architecture": lambda s: s["flow"].pop("architecture"),
    "other depth": lambda s: s["flow"]["options"].update(depth=2),
    "depth is text": lambda s: s["flow"]["options"].update(depth="three"),
    "unknown option": lambda s: s["flow"]["options"].update(width=3),
    "unknown activation": lambda s: s["flow"]["options"].update(activation="sine"),
    "other shape": lambda s: s["flow"].update(shape=[63]),
    "shape is text": lambda s: s["flow"].update(shape="64"),
    "unknown type": lambda s: s["flow"].update(dtype="float99"),
    "type is a function": lambda s: s["flow"].update(dtype="load"),
    "preprocessing of other width": lambda s: s["flow"]["preprocessing"].update(width=63),
    "unknown normalization": lambda s: s["flow"]["preprocessing"].update(normalize="zca"),
    "preprocessing is a list": lambda s: s["flow"].update(preprocessing=[1]),
    "no match_after": lambda s: s["flow"].pop("match_after"),
    "negative levels": lambda s: s["flow"]["preprocessing"].update(levels=-4),
}


@pytest.mark.parametrize("name", CHANGES)
def test_states_that_make_no_sense_are_told(copied, name):
    one_line(changed(copied, CHANGES[name]))


@pytest.mark.parametrize("text", ["[]", "3", "null", '"flow"', "{}"])
def test_json_that_is_no_state_is_told(copied, text):
    (copied / "state.json").write_text(text)
    assert "state.json" in one_line(copied)


def test_a_flow_of_unknown_making_resumes_and_is_told_when_loaded(digits, tmp_path):
    training, again = trainer(digits), trainer(digits)
    training.flow.spec = None
    save_training(training, tmp_path / "checkpoint")
    resume(again, tmp_path / "checkpoint")
    one_line(tmp_path / "checkpoint")


def plain(value):
    """Returns a checkpoint whose every part holds one value."""
    model, ema, optimizer = ({"t": torch.full((3,), float(value))} for _ in range(3))
    return Checkpoint(model, {"flow": {}, "value": value}, ema, optimizer)


def values(checkpoint):
    """Returns the values that a checkpoint's parts hold."""
    parts = (checkpoint.model, checkpoint.ema, checkpoint.optimizer)
    return {checkpoint.state["value"], *(float(part["t"][0]) for part in parts)}


def killed_at(count, work):
    """Runs ``work`` in a fork that dies at its ``count``-th look at the file system.

    Returns whether it was killed.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    seen = 0

    def hook(event, args):
        nonlocal seen
        if event.split(".")[0] in ("os", "shutil") or event == "open":
            seen += 1
            if seen == count:
                os._exit(9)

    try:
        sys.addaudithook(hook)
        work()
    finally:
        os._exit(0)


@pytest.mark.system
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """The old one or the new one, never a mixture, never none."""
    folder = tmp_path / "checkpoint"
    count, alive = 0, set()
    while True:
        count += 1
        write(folder, plain(1))
        killed = killed_at(count, lambda: write(folder, plain(2)))
        found = values(read(folder))
        assert found in ({1}, {2}), (count, found)
        alive |= found
        if not killed:
            break
    assert count > 10 and alive == {1, 2} and found == {2}


@pytest.mark.system
def test_a_write_after_a_kill_is_as_good_as_any(tmp_path):
    """However the first write ended, the second one counts, and nothing old comes back."""
    folder = tmp_path / "checkpoint"
    for count in range(1, 60):
        killed = killed_at(count, lambda: write(folder, plain(1)))
        write(folder, plain(3))
        assert values(read(folder)) == {3}
        if not killed:
            return
    raise AssertionError("never ended")


def test_reading_a_part_needs_only_that_part(copied):
    (copied / "optimizer.safetensors").unlink()
    found = read(copied, only=("model",))
    assert found.model and not found.ema and not found.optimizer


def test_the_code_is_recorded(trained):
    assert read(trained[1]).state["code"] == {"ebflow": __version__, "torch": torch.__version__}


@pytest.mark.parametrize("call", [check, read])
@pytest.mark.parametrize("name", FILES)
def test_one_turned_bit_is_told(copied, name, call):
    """The last bit of a file's last digit, or of its last number."""
    path = copied / name
    data = bytearray(path.read_bytes())
    data[max(data.rfind(d) for d in b"0123456789") if name == "state.json" else -9] ^= 1
    path.write_bytes(data)
    message = one_line(copied, call)
    assert name in message and "SHA-256" in message


def test_a_state_keeps_its_seal_whatever_it_holds():
    state = {"sha256": {}, "nan": float("nan"), "keys": {2: 0.1, 10: (1, None)}, "é": 1e-300}
    once = seal(state)
    assert seal(json.loads(json.dumps(once, indent=3)))["sha256"] == once["sha256"]
    assert seal({**state, "é": 1e-301})["sha256"] != once["sha256"]


def test_a_full_disk_is_the_systems_error_and_leaves_the_old_checkpoint(tmp_path):
    """A limit of the process on the size of files stands for the disk."""
    folder = tmp_path / "checkpoint"
    write(folder, plain(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        with pytest.raises(OSError, match="optimizer|ema|model") as error:
            write(folder, plain(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG
    assert values(read(folder)) == {1} and [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_loading_never_unpickles(trained, monkeypatch):
    import pickle

    def never(*args, **kwargs):
        raise AssertionError("unpickled")

    for owner, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(owner, name, never)
    load(trained[1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_this_machine_lacks_is_named(trained):
    """PyTorch raises a bare AssertionError."""
    with pytest.raises(ValueError, match="device: found cuda, expected one of this machine"):
        load(trained[1], device="cuda")


# Flows alone


@pytest.mark.parametrize("name", [n for n in FLOWS if n != "no layer"])
def test_a_flow_saved_is_the_flow_loaded(name, tmp_path):
    """Architectures by their spec, bases and contexts with them; others into one like it."""
    flow = FLOWS[name]().eval()
    flow.columns = detect_columns({"a": [0.5, 1.0], "b": ["u", "v"]})
    save(flow, tmp_path / "flow")
    into = None if flow.spec else FLOWS[name]()
    if into is not None:
        assert "custom flow" in one_line(tmp_path / "flow")
        with torch.no_grad():
            for p in into.parameters():
                p.zero_()
    found = load(tmp_path / "flow", into=into)
    x, c = at(flow), contexts(flow)
    with torch.no_grad():
        assert torch.equal(found.log_prob(x, context=c), flow.log_prob(x, context=c))
    assert found.columns == flow.columns and found.context == flow.context
    assert not found.training and not [p for p in found.parameters() if p.requires_grad]


def test_a_flow_of_another_form_takes_no_weights(tmp_path):
    save(FLOWS["every kind of layer"](), tmp_path / "flow")
    with pytest.raises(BadInput, match="its weights do not fit"):
        load(tmp_path / "flow", into=FLOWS["dense"]())


LARGER = {
    "more features than weights": lambda s: s.update(shape=[10**5]),
    "half a feature": lambda s: s.update(shape=[2.5]),
    "more layers than weights": lambda s: s["options"].update(depth=10**9),
    "no number": lambda s: s["options"].update(bias=float("nan")),
    "no list of options": lambda s: s.update(options=[1]),
    "a wide chain": lambda s: s["preprocessing"].update(width=10**8),
    "a wide mixture": lambda s: s.update(base=dict(name="mixture", roots=[10**5] * 3)),
}


@pytest.mark.parametrize("name", LARGER)
def test_a_spec_much_larger_than_its_weights_fills_no_memory(copied, name):
    assert "state.json" in one_line(changed(copied, lambda s: LARGER[name](s["flow"])))


def test_a_flow_is_loaded_on_a_device(trained):
    assert load(trained[1], device="meta").device.type == "meta"


def test_a_base_of_ones_own_is_not_taken_for_another(tmp_path):
    class Laplace(Base):
        def energy(self, x):
            return (x.abs() + math.log(2)).sum(1)

        def draw(self, shape, like, generator):
            raise NotImplementedError

    flow, x = ARCHITECTURES["dense"]((3,), base=Laplace()), torch.randn(5, 3, generator=seeded(1))
    save(flow, tmp_path / "flow")
    with pytest.raises(BadInput, match="into=flow"):
        load(tmp_path / "flow")
    again = load(tmp_path / "flow", into=ARCHITECTURES["dense"]((3,), base=Laplace()))
    assert torch.equal(again.log_prob(x), flow.eval().requires_grad_(False).log_prob(x))


def test_weights_may_be_fewer_than_elements(tmp_path):
    flow = ARCHITECTURES["convolutional"]((1, 12, 12), kernel_size=3, blocks=1, depth=2)
    save(flow, tmp_path / "flow")
    assert load(tmp_path / "flow").event_shape == (1, 12, 12)


def test_preprocessing_comes_back_in_front_of_a_flow_of_ones_own(tmp_path):
    def own():
        return Flow((3,), [Dense(torch.eye(3), torch.zeros(3)), MonotoneSpline((3,))])

    x = torch.randn(80, 3, generator=seeded(2))
    fitted = fit(x, flow=own(), steps=5, dtype=torch.float64, progress=False)
    save(fitted, tmp_path / "flow")
    again = load(tmp_path / "flow", into=own())
    assert torch.equal(again.log_prob(x), fitted.log_prob(x))


def test_a_layer_used_twice_is_saved(tmp_path):
    layer = Dense(torch.eye(3) * 1.5, None)
    save(Flow((3,), [layer, layer]), tmp_path / "flow")
    again = load(tmp_path / "flow", into=Flow((3,), [Dense(torch.eye(3), None) for _ in range(2)]))
    assert torch.equal(again.layers[1].weight, layer.weight)
