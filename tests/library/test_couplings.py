"""The nets of couplings, ``coupling`` and ``glow``: sizes, scales, starts, training."""

import math

import pytest
import torch

from ebflow import objectives
from ebflow.architectures import ARCHITECTURES, coupling, glow
from ebflow.bijections import ActNorm, Coupling, Dense, Part, Pointwise, Squeeze
from ebflow.checkpoint import rebuild

from . import reference
from .bijections.cases import seeded, stirred
from .training import losses, trainer

NETS = {
    "coupling": lambda **o: coupling(depth=2, hidden=4, **o),
    "coupling, splines": lambda **o: coupling((1, 1, 3), depth=2, hidden=4, bins=3, **o),
    "coupling, bounded": lambda **o: coupling(depth=2, hidden=4, bound=1.5, **o),
    "coupling, weight norm": lambda **o: coupling(depth=1, hidden=4, norm="weight", **o),
    "coupling, spectral norm": lambda **o: coupling(
        depth=1, hidden=4, norm="spectral", **o
    ).eval(),
    "glow": lambda **o: glow((1, 4, 4), depth=2, hidden=4, **o),
    "glow, splines": lambda **o: glow((1, 4, 4), depth=1, hidden=4, bins=3, **o),
    "glow, one level": lambda **o: glow((2, 2, 2), levels=1, depth=1, hidden=4, **o),
    "glow, three levels": lambda **o: glow((1, 8, 8), levels=3, depth=1, hidden=4, **o),
}
nets = pytest.mark.parametrize("name", NETS)


def count(modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_sizes_are_those_of_the_papers():
    flow = glow((1, 28, 28))
    assert count([flow]) == 10_041_352
    assert count(m for m in flow.modules() if isinstance(m, ActNorm)) == 384
    assert count([coupling()]) == 174_206


def test_blocks_of_planar_stand_in_the_order_of_the_paper():
    kinds = [type(layer) for layer in coupling(depth=2).layers]
    assert kinds == [Dense, Coupling, ActNorm, Dense, Coupling, ActNorm, Dense]
    flips = [layer.flip for layer in coupling(depth=3).layers if isinstance(layer, Coupling)]
    assert flips == [True, False, True]


@nets
def test_mixing_starts_orthogonal(name):
    weights = [m.weight for m in NETS[name]().modules() if isinstance(m, Dense | Pointwise)]
    assert weights
    for weight in weights:
        torch.testing.assert_close(weight @ weight.mT, torch.eye(len(weight)))


@pytest.mark.parametrize("levels", [2, 3])
def test_halves_leave_the_chain_at_every_level(levels):
    """The latent is that of an explicit multi-scale loop, what leaves last standing first."""
    flow = stirred(glow((1, 8, 8), levels=levels, depth=1, hidden=4), 0.1)
    layers = [layer.layer if isinstance(layer, Part) else layer for layer in flow.layers]
    x, left, steps = torch.randn(3, 1, 8, 8, generator=seeded()), [], iter(layers)
    for level in range(levels):
        for _ in range(4 + (level < levels - 1)):
            x = next(steps)(x)
        if level == 0:
            assert type(layers[5]).__name__ == "Reshape"
            next(steps)
        if level < levels - 1:
            x, half = x.chunk(2, 1)
            left.insert(0, half.flatten(1))
    assert next(steps, None) is None
    expected = torch.cat([x.flatten(1), *left], 1)
    found = flow(torch.randn(3, 1, 8, 8, generator=seeded()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert sum(isinstance(layer, Squeeze) for layer in layers) == levels


@nets
def test_a_spec_builds_the_same_net_again(name):
    flow = stirred(NETS[name](), 0.1)
    flow.initialise(torch.randn(20, *flow.event_shape, generator=seeded()))
    again = rebuild({**flow.spec, "dtype": "float64"}).eval()
    assert not again.initialised and repr(again) == repr(flow)
    again.load_state_dict(flow.state_dict())
    x = torch.randn(5, *flow.event_shape, generator=seeded(3))
    assert again.initialised and torch.equal(again.log_prob(x), flow.log_prob(x))


@nets
def test_starts_come_from_the_generator_alone(name):
    state = torch.get_rng_state()
    one, same, other = (NETS[name](**o) for o in ({}, {}, dict(generator=seeded(7))))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(one.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


@nets
@pytest.mark.parametrize(
    "objective", ["dsm", "ssm", "ssm_vr", "fd_ssm", "ml", "sml", "relative_ml"]
)
def test_every_parameter_gets_a_gradient(name, objective):
    flow = stirred(NETS[name](), 0.1)
    x = torch.randn(8, *flow.event_shape, generator=seeded(3))
    loss = objectives.OBJECTIVES[objective](flow, x, generator=seeded(4))
    assert loss.shape == (8,)
    parameters = dict(flow.named_parameters())
    for path, gradient in zip(
        parameters, reference.gradients(loss.mean(), list(parameters.values())), strict=True
    ):
        assert gradient.isfinite().all() and gradient.abs().max() > 0, path


TRAINED = {
    "coupling": dict(architecture="coupling", depth=2, hidden=4),
    "splines": dict(architecture="coupling", depth=1, hidden=4, bins=3),
    "glow": dict(architecture="glow", depth=1, hidden=4),
    "glow, smooth": dict(architecture="glow", depth=1, hidden=4, activation="swish"),
}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("objective", ["dsm", "ssm"])
def test_every_parameter_moves(digits, name, objective):
    """Within three steps: the first one moves only what conditioners end in."""
    training = trainer(digits, objective, net=TRAINED[name], steps=3)
    before = [p.detach().clone() for p in training.parameters]
    assert all(math.isfinite(loss) for loss in losses(training))
    names = [path for path, _ in training.flow.named_parameters()]
    moved = [bool((a != b).any()) for a, b in zip(before, training.parameters, strict=True)]
    assert all(moved), [path for path, did in zip(names, moved, strict=True) if not did]


@pytest.mark.parametrize("name", ["coupling", "glow"])
def test_likelihood_improves(digits, name):
    training = trainer(
        digits, "ml", net=TRAINED[name], steps=40, validate_every=40, optimizer="adam"
    )
    first, last = [e.metrics["val/nll"] for e in training.run() if e.kind == "validate"]
    assert last < first - 0.3


def test_the_type_may_differ_from_the_default(single_precision):
    for name in ("coupling", "glow"):
        shape = (1, 4, 4) if name == "glow" else (2,)
        flow = ARCHITECTURES[name](shape, depth=1, hidden=4, dtype=torch.float64)
        assert {p.dtype for p in flow.parameters()} == {torch.float64}


@pytest.mark.parametrize("shape", [(1, 6, 4), (4, 4), (1, 4, 2)])
def test_images_that_do_not_halve_are_refused(shape):
    with pytest.raises(ValueError, match="expected .C, H, W."):
        glow(shape, depth=1, hidden=2)


def test_nets_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="shape: found .1,., expected at least two elements"):
        coupling((1,))
    with pytest.raises(ValueError, match="shift_activation: found 'elu'"):
        coupling(bins=4, shift_activation="elu")
    with pytest.raises(ValueError, match="bound: found 2.0, expected None with bins"):
        coupling(bins=4, bound=2.0)
    with pytest.raises(ValueError, match="activation: found"):
        coupling(activation="sine")
    with pytest.raises(ValueError, match="norm: found 'layer', expected"):
        coupling(norm="layer")
