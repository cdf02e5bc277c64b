"""Dense layers: the cached factorization, triangles, and the relative gradient."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from ebflow.bijections import Dense

from .cases import matrix, seeded


@pytest.fixture
def factorizations(monkeypatch):
    """Counts the calls of lu_factor."""
    calls, plain = [], torch.linalg.lu_factor_ex
    monkeypatch.setattr(
        torch.linalg, "lu_factor_ex", lambda *a, **k: calls.append(1) or plain(*a, **k)
    )
    return calls


def agrees(layer):
    """True if log-det and inverse are those of the present weights."""
    expected = torch.linalg.slogdet(layer.weight.detach())[1]
    y = torch.randn(3, len(layer.weight), generator=seeded(3))
    with torch.no_grad():
        torch.testing.assert_close(layer.log_det(), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer(layer.inverse(y)), y, rtol=1e-10, atol=1e-10)


def fitted():
    """Returns a layer whose factorization is cached, and its gradient computed."""
    layer = Dense(matrix(5), torch.zeros(5))
    agrees(layer)
    layer(torch.randn(4, 5, generator=seeded())).pow(2).sum().backward()
    return layer


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("frozen_rows", [0, 1])
def test_factors_follow_an_optimizer(name, frozen_rows):
    """Whichever rows have a gradient, and though fused steps move no version counter."""
    layer = fitted()
    before = layer.weight.detach().clone()
    layer.weight.grad[:frozen_rows] = 0
    OPTIMIZERS[name](layer.parameters()).step()
    assert not torch.equal(layer.weight, before)
    agrees(layer)


CHANGES = {
    "load": lambda layer: layer.load_state_dict(
        {"weight": matrix(5, 9), "bias": torch.ones(5)}, assign=True
    ),
    "other memory": lambda layer: setattr(layer.weight, "data", matrix(5, 2)),
    "one entry": lambda layer: layer.weight.data[3, 1].add_(1),
    "rows exchanged": lambda layer: layer.weight.data.copy_(layer.weight.data.flip(0)),
    "transposed": lambda layer: layer.weight.data.copy_(layer.weight.data.mT.clone()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_factors_follow_data(name):
    layer = fitted()
    CHANGES[name](layer)
    agrees(layer)


def test_threads_may_ask_first_at_once():
    barrier, interval = Barrier(8), sys.getswitchinterval()

    @torch.no_grad()
    def ask(layer):
        barrier.wait()
        return float(layer.log_det())

    sys.setswitchinterval(1e-6)  # by default a thread is rarely interrupted here
    with ThreadPoolExecutor(8) as pool:
        for _ in range(150):
            assert len(set(pool.map(ask, [Dense(matrix(2), None)] * 8))) == 1
    sys.setswitchinterval(interval)


def test_factors_follow_an_average():
    layer = fitted()
    average = AveragedModel(layer, multi_avg_fn=lambda e, c, n: torch._foreach_lerp_(e, c, 0.5))
    agrees(average.module)
    optimizer = OPTIMIZERS["adam-fused"](layer.parameters())
    for _ in range(3):
        optimizer.step()
        average.update_parameters(layer)
        agrees(average.module)


def test_factors_follow_a_change_of_type():
    layer = fitted()
    agrees(layer.double())
    single = layer.float()
    with torch.no_grad():
        assert single.log_det().dtype == torch.float32
    agrees(single.double())


def test_factors_are_computed_once_a_version(factorizations):
    layer = Dense(matrix(5), torch.zeros(5))
    y = torch.randn(3, 5, generator=seeded())
    with torch.no_grad():
        for _ in range(3):
            layer.log_det()
            layer.inverse(y)
        assert len(factorizations) == 1
        layer.bias.add_(1)
        layer.inverse(y)
        assert len(factorizations) == 1
        layer.weight.mul_(2)
        layer.log_det()
        layer.inverse(y)
        assert len(factorizations) == 2


def test_frozen_weights_are_factorized_once_even_with_gradients_enabled(factorizations):
    layer = Dense(matrix(5), None, trainable=False)
    for _ in range(3):
        layer.log_det()
        layer.inverse(torch.randn(3, 5, generator=seeded()))
    assert len(factorizations) == 1


def test_single_precision_is_factorized_in_double():
    weight = torch.diag(torch.logspace(-12, 12, 50)).float()
    with torch.no_grad():
        found = Dense(weight, None).log_det()
    expected = torch.linalg.slogdet(weight.double())[1].float()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_singular_matrix_has_no_log_density():
    with torch.no_grad():
        assert Dense(torch.zeros(3, 3), None).log_det() == -torch.inf


@pytest.mark.parametrize("bias", [False, True])
def test_relative_gradient_is_the_exact_one_times_wtw(bias):
    layer = Dense(matrix(4), torch.ones(4) if bias else None)
    x = torch.randn(6, 4, generator=seeded(), requires_grad=True)
    weights = torch.rand(6, generator=seeded(1))

    def loss(y, log_det):
        return (weights * (torch.tanh(y).sum(1) + log_det)).sum()

    inputs = [layer.weight, x, *([layer.bias] if bias else [])]
    exact = torch.autograd.grad(loss(*layer.forward_and_log_det(x)), inputs)
    found = torch.autograd.grad(loss(*layer.relative(x)), inputs)
    w = layer.weight.detach()
    torch.testing.assert_close(found[0], exact[0] @ w.mT @ w)
    for a, b in zip(found[1:], exact[1:], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 3)])
def test_weights_that_are_not_square_are_refused(shape):
    with pytest.raises(ValueError, match="weight: found shape"):
        Dense(torch.ones(shape), None)
