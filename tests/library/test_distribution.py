"""The density of a flow as a distribution of PyTorch: shapes, contexts, samples, support."""

import copy
import math
from functools import partial

import pytest
import torch
from torch.distributions import Distribution

from ebflow import architectures
from ebflow.bijections import Affine, ConditionalAffine, Coupling, Dequantize
from ebflow.distribution import FlowDistribution
from ebflow.flow import Flow
from ebflow.tables import Columns
from ebflow.tables.column import Column

from .bijections.cases import directions, seeded
from .flows import CONTEXT, FLOWS, GIVEN, at, close, contexts, net, setting

SCORES = ("log_prob", "energy", "score", "to_latent")
given = pytest.mark.parametrize("name", GIVEN)


@pytest.mark.parametrize(
    ("batch", "shape"), [((), ()), ((5,), (3,)), ((2, 5), (4, 3)), ((0,), (2,))]
)
def test_it_is_a_distribution(batch, shape):
    flow = FLOWS["coupling, given"]()
    density = flow(torch.randn(*batch, CONTEXT, generator=seeded(6)))
    assert isinstance(density, Distribution) and density.has_rsample
    assert density.batch_shape == batch and density.event_shape == flow.event_shape == (3,)
    for draw in (density.sample, density.rsample):
        assert draw(shape, generator=seeded()).shape == (*shape, *batch, 3)
    x, log_prob = density.sample_and_log_prob(shape, generator=seeded())
    assert x.shape == (*shape, *batch, 3) and log_prob.shape == (*shape, *batch)
    close(density.log_prob(x).detach(), log_prob)
    assert density.score(x).shape == x.shape and density.energy(x).shape == (*shape, *batch)


def test_values_and_contexts_are_broadcast():
    flow = FLOWS["dense, given"]()
    c, x = contexts(flow), at(flow, 4)
    found = flow(c).log_prob(x[:, None])
    assert found.shape == (4, 5)
    for k in range(5):
        close(found[:, k], flow.log_prob(x, context=c[k]))
    one = flow(c[0])
    assert one.batch_shape == () and one.log_prob(x).shape == (4,)
    close(one.log_prob(x), found[:, 0])
    close(flow(c).to_latent(x[:, None])[:, 0], flow.to_latent(x, context=c[0]))
    u = torch.randn(4, 1, 3, generator=seeded(2))
    close(flow(c).from_latent(u)[:, 0], flow.from_latent(u[:, 0], context=c[0]))


def test_it_expands():
    flow = FLOWS["dense, given"]()
    c, x = contexts(flow, 1), at(flow, 4)
    wide = flow(c).expand((4,))
    assert isinstance(wide, FlowDistribution) and wide.batch_shape == (4,)
    close(wide.log_prob(x), flow.log_prob(x, context=c[0]))
    plain = net((4,))()
    assert plain.batch_shape == () and plain.expand((2, 3)).batch_shape == (2, 3)
    assert plain.expand((2, 3)).sample((5,), generator=seeded()).shape == (5, 2, 3, 4)


def test_global_randomness_serves_where_no_generator_is_given():
    torch.manual_seed(0)
    flow, draws = net((4,)), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(flow().sample((3,)))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_context_of_inner_size_one_is_paired_row_by_row():
    """A batch that does not end in the context's: rows are not given row i mod B."""
    flow = FLOWS["dense, given"]()
    c, x = contexts(flow, 2).view(2, 1, -1), at(flow, 6).view(2, 3, -1)
    found, wide = flow(c), flow(c.expand(2, 3, -1))
    close(found.log_prob(x), wide.log_prob(x))
    close(found.score(x), wide.score(x))
    close(found.to_latent(x), wide.to_latent(x))
    close(found.from_latent(wide.to_latent(x)), x)


def test_samples_and_their_densities_near_the_ends_of_pixels(single_precision):
    """In float32 a sample at the end of its range has rounded; its density must not."""
    from ebflow.bijections import Logit

    layers = [Dequantize(256), Logit(upper=256.0, margin=1e-6), Affine(13.0, 1.0, (3,))]
    flow = Flow((3,), layers)
    x, found = flow.sample_and_log_prob(2000, generator=seeded(1))
    exact = Flow((3,), layers).double()
    expected = exact.sample_and_log_prob(2000, generator=seeded(1))[1]
    assert x.isfinite().all() and found.isfinite().all()
    z = exact.base.draw((2000, 3), torch.zeros(()).double(), seeded(2))
    p = [torch.sigmoid(sign * (z + 13)).clamp(1e-6, 1 - 1e-6) for sign in (1, -1)]
    k = (1 - 2e-6) / 256
    by_hand = exact.base.log_prob(z) + (torch.log(torch.tensor(k)) - p[0].log() - p[1].log()).sum(
        1
    )
    single = flow.float()
    single.base.draw = lambda shape, like, generator: z.float()
    torch.testing.assert_close(
        single.sample_and_log_prob(2000)[1].double(), by_hand, atol=2e-4, rtol=1e-5
    )
    assert expected.shape == found.shape


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_named(value):
    flow = architectures.dense((3,), context=2)
    c, x = torch.tensor([[0.0, 1.0], [value, 2.0]]), torch.zeros(2, 3)
    for call in (flow(c).sample, flow(c).sample_and_log_prob, flow(c).rsample,
                 *(partial(getattr(flow(c), name), x) for name in SCORES)):  # fmt: skip
        with pytest.raises(ValueError, match=f"context, feature 0, row 1: found {value},"):
            call()
    x[1, 2] = value
    for name in SCORES:
        if name == "log_prob" and math.isnan(value):
            continue  # a missing value
        with pytest.raises(ValueError, match=f"x, feature 2, row 1: found {value}, expected"):
            getattr(flow(c[:1]), name)(x)


def test_samples_that_are_rounded_have_no_gradient():
    flow = Flow((3,), [Dequantize(17), Affine(8.0, 4.0, (3,), trainable=True)])
    density = flow()
    assert not density.has_rsample and not density.sample((2,)).requires_grad
    with pytest.raises(NotImplementedError, match="rounded"):
        density.rsample((2,))


def test_a_flow_and_its_density_are_printed_in_brief():
    flow = architectures.dense((3,), depth=1, context=2, dtype=torch.float32)
    columns, context = ([Column(n, "number", "float64") for n in names] for names in ("abc", "kl"))
    flow.columns = Columns(columns, context=Columns(context))
    lines = repr(flow).splitlines()
    size = sum(p.numel() for p in flow.parameters())
    assert lines[0] == (
        f"Flow(event_shape=(3,), parameters={size:,}, dtype=torch.float32, device=cpu)"
    )
    assert lines[1:4] == [
        "  columns: a, b, c",
        "  context: 2 (k, l)",
        "  layer 0: Dense((3,), bias=True)",
    ]
    assert lines[-1] == "  base: StandardNormal()"
    assert "batch_shape=(5,), event_shape=(3,), context=(5, 2)" in repr(flow(torch.zeros(5, 2)))


# Contexts


@given
def test_every_row_is_given_its_own_context(name):
    """Whatever the others are given; R B points are R copies of the batch of contexts."""
    flow, density, x = setting(name)
    c, other = contexts(flow), at(flow, seed=12)
    rows = torch.stack([flow(c[k]).log_prob(x[k]) for k in range(5)])
    close(density.log_prob(x), rows)
    close(flow.log_prob(x, context=c), rows)
    assert not torch.allclose(rows, flow.log_prob(x, context=c.flip(0)))
    v, both = directions(x, 2), torch.cat([x, other])
    evaluation = density.at(both)
    close(evaluation.score, torch.cat([density.score(x), density.score(other)]))
    close(evaluation.energy, torch.cat([density.energy(x), density.energy(other)]))
    found = density.at(both).directional(torch.cat([v, v], 1))
    parts = zip(density.directional(x, v), density.directional(other, v), strict=True)
    for a, b in zip(found, parts, strict=True):
        close(a, torch.cat(b, 1))


@given
def test_a_context_is_needed_and_of_its_size_where_there_is_one(name):
    flow, _, x = setting(name)
    with pytest.raises(ValueError, match=r"context: found shape \(5, 1\), expected None"):
        net((4,))(torch.zeros(5, 1))
    with pytest.raises(ValueError, match=r"context: found None, expected shape \(\*, 2\)"):
        flow.log_prob(x)
    with pytest.raises(ValueError, match=r"context: found shape \(5, 3\), expected \(\*, 2\)"):
        flow(torch.zeros(5, 3))


def test_contexts_are_standardized_by_those_that_were_shown():
    flow = FLOWS["dense, given"]()
    plain = copy.deepcopy(flow)
    c = 100 + 7 * contexts(flow, 50)
    c[:, 1] = 3.0  # a constant one keeps its scale
    flow.standardize_context(c.double().mean(0), c.double().std(0, correction=0))
    standard = torch.stack([(c[:, 0] - c[:, 0].mean()) / c[:, 0].std(correction=0),
                            torch.zeros(50)], 1)  # fmt: skip
    x = at(flow, 50)
    close(flow.log_prob(x, context=c), plain.log_prob(x, context=standard))
    again = FLOWS["dense, given"]()
    again.load_state_dict(flow.state_dict())
    assert torch.equal(again.log_prob(x, context=c), flow.log_prob(x, context=c))
    assert torch.equal(flow.core.log_prob(x, context=c), flow.log_prob(x, context=c))


def test_constant_contexts_are_only_centered():
    """0.1 is rounded in float32: its deviation from the stored mean is no spread."""
    flow = architectures.dense((3,), context=2, dtype=torch.float32)
    c = torch.stack([torch.full((50,), 0.1), torch.arange(50.0)], 1).double()
    flow.standardize_context(c.mean(0), c.std(0, correction=0))
    found = flow.standardized(torch.tensor([[0.1, 24.5], [1.1, 24.5]]).double())
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [1.0, 0.0]]).float())


def test_the_normalizer_knows_no_context():
    flow = FLOWS["convolutional, given"]()
    assert not [layer for layer in flow.layers if layer.constant_jacobian
                and isinstance(layer, ConditionalAffine | Coupling)]  # fmt: skip
    assert flow(contexts(flow)).log_normalizer() == flow.log_normalizer()
