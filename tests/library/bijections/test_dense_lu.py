"""Dense layers by their LU factors: starts, inverses, the score chain, and checkpoints."""

import torch

import ebflow
from ebflow.architectures import dense
from ebflow.bijections import DenseLU
from tests.library import reference
from tests.library.bijections.cases import rotation, seeded, stirred

SIZE = 4
CLOSE = dict(rtol=1e-10, atol=1e-10)


def test_factors_start_as_the_weight_and_stay_invertible():
    weight = rotation(SIZE)
    layer = DenseLU(weight, torch.ones(SIZE))
    torch.testing.assert_close(layer.linear(torch.eye(SIZE)).mT, weight, **CLOSE)
    assert not torch.equal(layer.order, torch.arange(SIZE))
    moved = stirred(DenseLU(weight, torch.ones(SIZE)), 0.5)
    w = moved.linear(torch.eye(SIZE)).detach().mT
    torch.testing.assert_close(moved.log_det(), torch.linalg.slogdet(w)[1], **CLOSE)
    x = torch.randn(6, SIZE, generator=seeded(5))
    torch.testing.assert_close(moved.inverse(moved(x)), x, rtol=1e-9, atol=1e-9)


def test_a_net_of_them_is_loaded_as_it_was_saved(tmp_path):
    made = stirred(dense((SIZE,), linear="lu", activation="spline"), 0.1)
    x = torch.randn(6, SIZE, generator=seeded(5))
    ebflow.save(made, tmp_path / "flow")
    found = ebflow.load(tmp_path / "flow").log_prob(x)
    torch.testing.assert_close(found, made.log_prob(x))


def test_the_score_chain_has_its_jacobian():
    layer = stirred(DenseLU(rotation(SIZE), torch.ones(SIZE)))
    x = torch.randn(3, SIZE, generator=seeded())
    J, at = reference.jacobian(layer, x)[0], layer.linearize(x)
    torch.testing.assert_close(at.y, layer(x))
    torch.testing.assert_close(at.tangent(x[None])[0], x @ J.mT)
    torch.testing.assert_close(at.pullback(x), x @ J)
