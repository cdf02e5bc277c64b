"""Where products are of the full precision, and where that is demanded."""

import pytest
import torch

from ebflow.execution import products
from ebflow.objectives import OBJECTIVES
from ebflow.traces import full_products

from .training import trainer

DIFFERENCES = ("fd_ssm", "taylor_sm")
SINGLE = torch.zeros(2, dtype=torch.float32)


def state():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_precision_is_set_for_a_while(precision):
    before = state()
    with pytest.raises(KeyError), products(precision):
        assert state() == (precision, precision != "highest")
        raise KeyError
    assert state() == before


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_single_precision_needs_full_products(precision):
    full_products(SINGLE)
    with products(precision):
        full_products(SINGLE.double())
        with pytest.raises(ValueError, match=f"precision: found {precision}, expected highest"):
            full_products(SINGLE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match="found half precision"):
        full_products(SINGLE.to(dtype))


def test_autocast_is_refused():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="no autocast"):
        full_products(SINGLE)


MIXED = {
    **{name: dict(objective=name) for name in OBJECTIVES if name not in DIFFERENCES},
    "anchored": dict(objective="dsm", loss=dict(anchor=dict(interval=4, tolerance=1e-3))),
    "convolutional": dict(objective="ssm", net=dict(architecture="convolutional")),
    "coupling": dict(objective="ssm", net=dict(architecture="coupling", depth=1, hidden=4)),
}


@pytest.fixture
def single():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("options", MIXED.values(), ids=MIXED)
def test_mixed_precision_trains_float32_weights(options, digits, single):
    """A step's relative error of 4e-3 leaves the NLL after 12 steps within 0.1 nats."""
    nll, losses = [], []
    for precision in ("highest", "bfloat16"):
        training = trainer(digits, **options, precision=precision, log_every=1)
        told = list(training.run())
        nll.append([e.metrics["val/nll"] for e in told if e.kind == "validate"])
        losses.append([e.metrics["train/loss"] for e in told if e.kind == "log"])
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in training.parameters)
    assert nll[1] == pytest.approx(nll[0], abs=0.1) and nll[1][0] == nll[0][0]
    assert losses[1] != losses[0] and losses[1][-1] == pytest.approx(losses[0][-1], abs=1)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_refuse_mixed_precision(name, digits, single):
    with pytest.raises(ValueError, match="found half precision"):
        list(trainer(digits, objective=name, precision="bfloat16").run())


def test_autocast_ends():
    with products("bfloat16"):
        assert torch.nn.functional.linear(SINGLE, SINGLE[None]).dtype == torch.bfloat16
    assert torch.nn.functional.linear(SINGLE, SINGLE[None]).dtype == torch.float32
