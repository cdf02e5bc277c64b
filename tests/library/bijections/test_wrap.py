"""Transforms of PyTorch and zuko in flows, against the flows of zuko and autograd."""

import pytest
import torch
import zuko
from torch.distributions import transforms

from ebflow.bijections import Wrap
from ebflow.flow import Flow

from .. import reference
from .cases import seeded, stirred

CLOSE = dict(rtol=1e-6, atol=1e-6)
PEERS = {
    "splines": lambda context: zuko.flows.NSF(3, context, transforms=2, bins=3),
    "couplings": lambda context: zuko.flows.NICE(3, context, transforms=2),
    "neural": lambda context: zuko.flows.NAF(3, context, transforms=1, signal=2),
}
TRANSFORMS = {
    "elementwise": lambda: transforms.SigmoidTransform(),
    "affine": lambda: transforms.AffineTransform(1.0, torch.tensor([2.0, -0.5, 1.0])),
    "triangular": lambda: transforms.ComposeTransform(
        [transforms.TanhTransform(), zuko.transforms.LULinearTransform(
            torch.tensor([[1.0, 0.5, 0.2], [0.3, 1.0, -0.4], [0.1, 0.6, 1.0]]))]),
}  # fmt: skip


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("name", PEERS)
def test_a_flow_of_zuko_keeps_its_density(name, context):
    torch.manual_seed(0)
    peer = stirred(PEERS[name](context), 0.1)
    flow = Flow((3,), [Wrap(peer.transform, context=context)], context=context)
    x = torch.randn(5, 3, generator=seeded(3))
    c = torch.randn(5, 2, generator=seeded(4)) if context else None
    found, expected = flow.log_prob(x, context=c), peer(c).log_prob(x)
    torch.testing.assert_close(found, expected, **CLOSE)
    named = list(flow.parameters())
    assert len(named) == len(list(peer.parameters()))
    pairs = (reference.gradients(value.sum(), named) for value in (found, expected))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    u = flow.to_latent(x, context=c)
    torch.testing.assert_close(flow.from_latent(u, context=c), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_pytorch_are_layers(name):
    layer = Wrap(TRANSFORMS[name]())
    x = torch.randn(5, 3, generator=seeded(3))
    y, log_det = layer.forward_and_log_det(x)
    torch.testing.assert_close(log_det, reference.log_det(layer, x), **CLOSE)
    torch.testing.assert_close(layer.inverse(y), x, **CLOSE)
    assert type(layer.transform).__name__ in repr(layer)


def test_a_lazy_transform_with_a_context_needs_one():
    flow = Flow((3,), [Wrap(PEERS["couplings"](2).transform, context=2)], context=2)
    with pytest.raises(ValueError, match="context: found None"):
        flow.log_prob(torch.zeros(1, 3))
