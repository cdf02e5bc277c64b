"""Waits of the host for a GPU, found without one.

Models run on PyTorch's device ``meta``, whose tensors have shapes and no values. A host that reads
a value waits until a GPU has done all work before it, and so does a copy to or from it. ``Watch``
records the functions that do this, and those that compute on the CPU. The exceptions below are all
there are: tests fail if there are others, and if one is no longer needed.
"""

import sys
from contextlib import nullcontext
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ebflow
from ebflow.bijections import Convolution, Dense
from ebflow.bijections.base import products
from ebflow.evaluation import log_probs
from ebflow.loss import Loss
from ebflow.objectives import OBJECTIVES, full_products, ml
from ebflow.tables.rows import Arrays, Rows
from ebflow.train import Trainer
from tests.pipelines.training import cases

from .training import OPTIMIZERS

# Each exception, as (what, function), and its reason.
FACTORS = ("reads", "Weighted._factorized")  # compares a weight with that of the cached factors
STRIPS = ("reads", "Elimination.accurate")  # chooses between strips and one LU of a convolution
NEWTON = ("reads", "root")  # asks after every eight steps if they have converged
VALUES = ("reads", "refuse")  # checks a caller's values: finite; numbers of float64 not too large
LEVELS = ("copies", "Dequantize.check")  # checks that a caller's values are levels
CELLS = {
    ("reads", "Cells.uneven"),  # asks which columns have cells, once a call
    ("copies", "Cells.uneven"),
    ("counts", "Cells.noisy_columns"),
    ("copies", "Cells.noisy_columns"),
}
SINGULAR = ("reads", "Anchor.refresh")  # asks at a refresh if a matrix is singular
DRIFT = {
    ("reads", "Anchor._drifted"),  # compares the drift of all layers with the tolerance
    ("copies", "Anchor._drift"),  # random probes of each layer
    ("computes on the CPU", "Anchor._drift"),
}

STRIPED = ("convolutional", "spectral", "coupled convolutions")
ITERATED = ("dense", "dense, splines", *STRIPED)
NETS = {
    **cases.NETS,
    "pixels": dict(architecture="pixelcnn", values=256, depth=2, hidden=4),
    "dense, splines": dict(activation="spline"),
    "spectral": dict(architecture="convolutional", spectral_norm=True),
    "coupled convolutions": dict(architecture="convolutional", depth=2, hidden=2),
    "coupling, splines": dict(architecture="coupling", depth=1, hidden=4, bins=3),
    "autoregressive, splines": dict(architecture="autoregressive", depth=2, hidden=8, bins=3),
}
nets = pytest.mark.parametrize(
    "name",
    [*cases.NETS, *(pytest.param(n, marks=pytest.mark.slow) for n in NETS if n not in cases.NETS)],
)


class Watch(TorchDispatchMode):
    """Records where a host waits for the device, or computes itself, as (what, function)."""

    def __init__(self):
        super().__init__()
        self.seen, self.last = [], ""

    def note(self, what):
        frame = sys._getframe(2)
        while frame.f_back and frame.f_globals["__name__"].split(".")[0] not in (
            "ebflow",
            "pipelines",
        ):
            frame = frame.f_back
        self.seen.append((what, frame.f_code.co_qualname))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name, last = kwargs or {}, func.name().removeprefix("aten::"), self.last
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        meta, self.last = [t for t in tensors if t.is_meta], name
        if meta and name in ("_local_scalar_dense", "equal"):  # finds nothing wrong, all converged
            self.note("reads")
            kind = torch.bool if name == "equal" else meta[0].dtype
            return last != "any" and torch.ones((), dtype=kind).item()
        if meta and (name == "nonzero" or _has_mask(name, args)):
            self.note("counts")
            return meta[0].new_empty(0, meta[0].ndim, dtype=torch.long)
        if name == "_to_copy" and _moves(tensors[0], **kwargs):
            self.note("copies")
            return torch.ones_like(tensors[0], **kwargs) if meta else func(*args, **kwargs)
        if name.startswith("_fused_adam"):  # which this device does not have
            return None
        result = func(*args, **kwargs)
        involved = [t for t in (*tensors, result) if isinstance(t, torch.Tensor)]
        if any(t.device.type == "cpu" and t.ndim for t in involved):
            self.note("computes on the CPU")
        return result


def _has_mask(name, args):
    indices = tree_leaves(args[1]) if name.startswith("index") and len(args) > 1 else []
    return any(isinstance(t, torch.Tensor) and t.dtype == torch.bool for t in indices)


def _moves(t, device=None, **_):
    return device is not None and torch.device(device).type != t.device.type


class Literals(TorchFunctionMode):
    """Records numbers of Python that are copied to the device, which no operator shows."""

    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        index = args[1] if func is torch.Tensor.__getitem__ else ()
        lists = any(type(i) is list for i in (index if isinstance(index, tuple) else [index]))
        if (lists or func in (torch.tensor, torch.Tensor.new_tensor)) and result.is_meta:
            self.watch.note("copies")
        return result


@pytest.fixture
def meta(monkeypatch):
    """Returns the device, which autocast and fused optimizers do not refuse from now on."""
    enabled, autocast = torch.is_autocast_enabled, torch.autocast

    def cast(device, *args, **options):
        return nullcontext() if device == "meta" else autocast(device, *args, **options)

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda d: d != "meta" and enabled(d))
    monkeypatch.setattr(torch, "autocast", cast)
    devices = ["meta", "cpu"]
    optimizers = sys.modules["torch.optim.optimizer"]
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: devices)
    return torch.device("meta")


def watched(create, before=1):
    """Returns what a call makes the host do, after some calls before; ``create`` returns it."""
    watch = Watch()
    with watch, Literals(watch):
        call = create()
        for _ in range(before):
            call()
        watch.seen.clear()
        call()
    return watch.seen


def steps(digits, objective, name, match_after=True, **rule):
    """Returns a function that does the next step of a training on the device.

    The batch is always the same: the order of an epoch's rows is copied at its start.
    """
    match = objective not in ("ml", "relative_ml", "lazy_ml", "sml")
    loss = dict(anchor=dict(interval=100, **rule)) if match else {}
    made = cases.trainer(digits, objective, loss=loss, net=NETS[name], clip=1.0, smoothing=0.1,
                   device="meta", match_after=match_after)  # fmt: skip
    return partial(made.train_step, next(made.batches()))


@pytest.mark.parametrize("objective", OBJECTIVES)
@nets
def test_a_step_does_not_wait(digits, meta, name, objective):
    """Rows, noise, the loss, both passes, clipping, the optimizer, averages; no refresh."""
    expected = set()
    if objective in ("ml", "relative_ml") and name in STRIPED:
        expected = {STRIPS}
    if objective == "sml" and name != "pixels":
        expected = {FACTORS, NEWTON} if name in ITERATED else {FACTORS}
    assert set(watched(lambda: steps(digits, objective, name))) == expected


@nets
def test_evaluation_sampling_and_scores_wait_at_their_ends(digits, meta, name):
    """Some layers of sampling wait as well."""
    flow = watched_flow(digits, name)
    x = torch.empty(5, 64, dtype=torch.uint8, device="meta")
    newton = {NEWTON} if name in ITERATED else set()
    assert set(watched(lambda: lambda: log_probs(flow, x))) == {FACTORS, VALUES, LEVELS}
    assert set(watched(lambda: lambda: flow.sample(5))) == {FACTORS, *newton}
    assert set(watched(lambda: lambda: flow.score(x))) == {VALUES, LEVELS}


def watched_flow(digits, name):
    """Returns the averaged flow of a training, in evaluation mode."""
    made = []

    def create():
        made.append(cases.trainer(digits, net=NETS[name], device="meta").averaged)

    watched(lambda: create, before=0)
    return made[0]


def test_a_whitening_in_the_trained_part_waits(digits, meta):
    create = partial(steps, digits, "dsm", "dense", match_after=False)
    assert watched(create) == [FACTORS]


def test_a_refresh_and_a_check_of_the_drift_wait_once_for_all_layers(digits, meta):
    options = dict(tolerance=2.0, check_every=1)
    step = watched(lambda: steps(digits, "dsm", "dense", **options))
    assert set(step) == DRIFT and step.count(("reads", "Anchor._drifted")) == 1
    assert watched(lambda: steps(digits, "dsm", "dense", **options), before=0) == [SINGULAR]


@pytest.fixture(scope="module")
def table():
    """A table of every kind of column, and a context."""
    random, rows = np.random.default_rng(0), 300
    return pd.DataFrame({
        "real": random.normal(size=rows),
        "atom": np.where(random.random(rows) < 0.4, 0.0, random.normal(size=rows)),
        "grid": random.integers(0, 40, rows),
        "kind": random.choice(list("abc"), rows),
        "context": random.normal(size=rows),
    })  # fmt: skip


@pytest.mark.filterwarnings("ignore:no step of the training")
def test_tables_wait_at_their_ends(table, meta, single_precision):
    """A step checks that the numbers of its rows, in float64, are not too large for float32."""
    fitted = ebflow.fit(table, context="context", steps=1, progress=False)
    flow, fitted.columns = fitted.to(meta).requires_grad_(True), None
    x = torch.empty(20, 4, dtype=torch.float64, device=meta)
    c = torch.empty(20, 1, device=meta)

    def step():
        optimizer = OPTIMIZERS["adamw"]
        made = Trainer(flow, Arrays(Rows(x, c)), loss=Loss(ml), optimizer=optimizer, batch_size=9)
        return partial(made.train_step, next(made.batches()))

    evaluation = partial(log_probs, flow, x, context=c)
    assert set(watched(lambda: evaluation)) == {FACTORS, VALUES, *CELLS}
    assert set(watched(lambda: flow(c).sample_tensor)) == {FACTORS, VALUES}
    assert set(watched(lambda: partial(flow(c).score, x))) == {VALUES}
    assert set(watched(step)) == {VALUES}


SYNCHRONOUS = {
    "item": lambda x: x.sum().item(), "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).all()), "equal": lambda x: torch.equal(x, x),
    "tolist": lambda x: x.tolist(), "cpu": lambda x: x.cpu(), "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0], "write by mask": lambda x: x.index_put_((x > 0,), x.sum()),
    "list": lambda x: x[[0]], "to the device": lambda x: torch.zeros(2).to(x.device),
    "tensor": lambda x: torch.tensor([1.0], device=x.device),
    "left on the CPU": lambda x: torch.ones(2).exp(),
}  # fmt: skip


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_the_watch_sees(name):
    x = torch.ones(3, device="meta")
    assert watched(lambda: partial(SYNCHRONOUS[name], x))
    assert not watched(lambda: lambda: x * torch.zeros(()) + torch.zeros(2, device="meta").sum())


# The precision of products, as a build of PyTorch with CUDA sees it


@pytest.fixture
def cuda(monkeypatch):
    """Lets tensors without values claim to be on a GPU; their operators see CUDA's autocast."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *a, **k: True)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield torch.empty(2, 1, 3, 3, device="cuda", dtype=torch.float32)


def on_gpu(layer):
    """Returns a layer whose weight claims to be on a GPU."""
    weight = torch.empty_like(layer.weight, device="cuda", dtype=torch.float32)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    return layer


def test_products_on_a_gpu_are_as_precise_as_asked(cuda):
    dense = on_gpu(Dense(torch.eye(9), None))
    convolution = on_gpu(Convolution(torch.ones(1, 1, 3, 3), None, (3, 3)))
    images, rows = cuda, cuda.flatten(1)
    before = torch.backends.cudnn.allow_tf32
    for precision, dtype in (("highest", torch.float32), ("bfloat16", torch.bfloat16)):
        with products(precision, "cuda"):
            values = dense(rows), convolution(images), dense.relative(rows)[0]
            assert {y.dtype for y in values} == {dtype}
            assert not torch.is_autocast_enabled("cpu")
    for precision, found in (("bfloat16", "half"), ("high", "TF32")):
        with products(precision, "cuda"), pytest.raises(ValueError, match=f"found {found}"):
            full_products(rows)
    with products("highest", "cuda"):
        full_products(rows)
    assert torch.backends.cudnn.allow_tf32 == before
