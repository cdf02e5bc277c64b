"""The density of a flow against brute force: every kind of layer, base and context."""

import copy
import pickle

import pytest
import torch

from ebflow import density as density_module

from . import reference
from .bijections.cases import directions, seeded, stirred
from .flows import CONTEXT, FLOWS, GIVEN, at, brute, close, contexts, images, named, net, setting

CLOSE = dict(rtol=1e-9, atol=1e-9)
flows = pytest.mark.parametrize("name", FLOWS)
given = pytest.mark.parametrize("name", GIVEN)


def same_gradients(flow, *scalars):
    """Compares the gradients of scalars by all parameters with those of the last."""
    named = {name: p for name, p in flow.named_parameters() if p.requires_grad}
    if named and scalars[-1].requires_grad:
        *found, expected = (reference.gradients(t, list(named.values())) for t in scalars)
        for one in found:
            for name, a, b in zip(named, one, expected, strict=True):
                torch.testing.assert_close(a, b, **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


@flows
def test_log_prob_is_the_change_of_variables(name):
    flow, density, x = setting(name)
    expected = brute(density)(x)
    found = density.log_prob(x)
    close(found, expected)
    same_gradients(flow, found.square().sum(), expected.square().sum())
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            close(density.log_prob(x), expected)


@flows
def test_energy_leaves_out_what_does_not_depend_on_the_input(name):
    flow, density, x = setting(name)
    log_z, y = torch.zeros(()), x
    for layer in density.layers:
        if layer.constant_jacobian:
            log_z = log_z - reference.log_det(layer, y)[0]
        y = layer(y)
    close(flow.log_normalizer(), log_z)
    energy = density.energy(x)
    close(-energy - log_z, brute(density)(x))
    for first in ("latent", "linearizations", "score"):  # whatever was asked before
        evaluation = density.at(x)
        getattr(evaluation, first)
        close(evaluation.energy, energy)
        close(evaluation.latent, y)


@flows
def test_score_curvature_trace_and_jets(name):
    """Values, and the parameter gradients of one sum of all, by one backward pass."""
    flow, density, x = setting(name)
    v = directions(x, 2)
    s, h = reference.hessian(brute(density), x)
    flat = v.flatten(2)
    slope = torch.einsum("kbi,bi->kb", flat, s)
    curvature = torch.einsum("kbi,bij,kbj->kb", flat, h, flat)
    trace = h.diagonal(dim1=1, dim2=2).sum(1)
    expected = (s, curvature, trace, -brute(density)(x) - flow.log_normalizer())
    at = density.at(x)
    found = at.score.flatten(1), at.curvature(v), at.laplacian(), at.energy
    for a, b in zip(found, expected, strict=True):
        close(a, b)
    scalars = (
        a.square().sum() + b.sin().sum() + (c * torch.arange(len(x)) + energy).sum()
        for a, b, c, energy in (found, expected)
    )
    same_gradients(flow, *scalars)
    jets, expected = density.directional(x, v), (slope, curvature)
    for a, b in zip(jets, expected, strict=True):
        close(a, b)
    same_gradients(flow, *(sum(t.sin().sum() for t in pair) for pair in (jets, expected)))


@flows
def test_derivatives_need_no_gradient(name):
    _, density, x = setting(name)
    v = directions(x, 2)

    def derivatives(x, v):
        at = density.at(x)
        return at.score, *at.directional(v), at.laplacian()

    expected = derivatives(x, v)
    with torch.no_grad():
        found = [derivatives(x, v)]
    with torch.inference_mode():
        inside = (x.clone(), v.clone())  # tensors of the mode itself
        found += [derivatives(x, v), derivatives(*inside)]
        for one in found:
            for a, b in zip(one, expected, strict=True):
                close(a, b)


@flows
def test_inverse_and_samples(name):
    flow, density, x = setting(name)
    u = torch.randn(5, *flow.latent_shape, generator=seeded(9))
    torch.testing.assert_close(density.to_latent(density.from_latent(u)), u, rtol=1e-8, atol=1e-8)
    samples = density.sample(7, generator=seeded(1))
    assert samples.shape == (7, *density.batch_shape, *flow.event_shape)
    assert not samples.requires_grad and torch.equal(
        samples, density.sample((7,), generator=seeded(1))
    )
    again, log_prob = density.sample_and_log_prob((7,), generator=seeded(1))
    assert torch.equal(again, samples) and not log_prob.requires_grad
    torch.testing.assert_close(log_prob, density.log_prob(samples).detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["dense", "coupling", "mixture", "dense, given"])
def test_samples_follow_the_parameters(name):
    """u(x(θ), θ) does not move with θ if x is a differentiable sample; for a fixed base."""
    flow, density, _ = setting(name)
    named = [p for p in flow.layers.parameters() if p.requires_grad]
    x = density.rsample((3,), generator=seeded(1))
    assert x.requires_grad
    u = density.to_latent(x)
    weights = torch.randn(u.shape, generator=seeded(2))
    for gradient in reference.gradients((weights * u).sum(), named):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-8)


def test_samples_have_the_density_of_the_flow():
    """By E[1/p · 1(|x| < r)] = volume: a z-test at a false-alarm rate of 1e-4 (3.9 sigma)."""
    flow = net((2,), depth=2)
    x, log_p = flow.sample_and_log_prob(40_000, generator=seeded(4))
    terms = (x.norm(dim=1) < 1).double() * torch.exp(-log_p)
    z = (terms.mean() - torch.pi) / (terms.std() / len(x) ** 0.5)
    assert abs(z) < reference.two_sided(1e-4)


# Batches


def told(density, x):
    """Returns all that a density tells of points, each with the batch in front."""
    points, v = density.at(x), torch.ones(2, *x.shape)
    slope, curvature = points.directional(v)
    return (density.log_prob(x), points.energy, points.latent, points.score, points.laplacian(),
            slope.mT, curvature.mT, points.curvature(v).mT)  # fmt: skip


@flows
def test_batches_of_none_and_of_one(name):
    flow = FLOWS[name]()
    x, c = at(flow, 2), contexts(flow, 2)
    whole = told(flow(c), x)
    for rows in (slice(0, 0), slice(0, 1)):
        found = told(flow(None if c is None else c[rows]), x[rows])
        for part, full in zip(found, whole, strict=True):
            close(part, full[rows])


@pytest.mark.parametrize("name", ["dense", "zero", "glow, given", "coupling, given"])
def test_points_need_not_be_contiguous(name):
    flow, density, x = setting(name)
    strided = x.repeat_interleave(2, -1)[..., ::2]
    assert not strided.is_contiguous()
    close(told(density, strided), told(density, x))


def test_leading_dimensions_images_and_rows():
    flow = FLOWS["every kind of layer"]()
    x = at(flow, 6)
    expected = flow.log_prob(x)
    for batch in ((6,), (2, 3), (1, 6)):
        shaped = x.view(*batch, 2, 1, 2)
        close(flow.log_prob(shaped).flatten(), expected)
        assert flow.score(shaped).shape == shaped.shape
        assert flow.to_latent(shaped).shape == (*batch, 4)
    rows, image = net((4,)), torch.randn(3, 2, 2, generator=seeded())
    close(flow.log_prob(x.flatten(1)), expected)
    close(flow.log_prob(x.view(2, 3, 4)).flatten(), expected)
    close(rows.log_prob(image), rows.log_prob(image.flatten(1)))
    assert flow.log_prob(x[0]).shape == () and rows.score(image[0].flatten()).shape == (4,)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 1), ()])
def test_wrong_shapes_raise(shape):
    flow = net((4,))
    for call in (flow.to_latent, flow.log_prob, flow.energy, flow.score, flow.preprocess):
        with pytest.raises(ValueError, match=r"x: found shape .*, expected \(\*, 4\)"):
            call(torch.zeros(shape))


@pytest.mark.parametrize("elements", [1, 41, 10**9])
def test_parts_of_any_size_sum_to_the_trace(elements, monkeypatch):
    """Directions one by one, two at a time, and all at once."""
    flow = net((4,), depth=3)
    x = at(flow)
    expected = flow.at(x).laplacian()
    monkeypatch.setattr(density_module, "ELEMENTS", elements)
    close(flow.at(x).laplacian(), expected)


CLOSED = {
    "dense": lambda: net((4,), bias=0.3),
    "image": lambda: net((1, 2, 2)),
    "one spline": lambda: stirred(net((4,), depth=1, activation="spline")),
    "two convolutions": lambda: images(blocks=1),
    "linear alone": FLOWS["linear alone"],
    "no layer": FLOWS["no layer"],
}


@pytest.mark.parametrize("name", CLOSED)
def test_the_trace_has_a_closed_form_with_one_activation(name, monkeypatch):
    """Without the sum over directions, which is the reference."""
    flow = CLOSED[name]()
    x = at(flow)
    expected = density_module.Evaluation.laplacian(flow.at(x))
    monkeypatch.delattr(density_module.Evaluation, "laplacian")
    found = flow.at(x).laplacian()
    close(found, expected)
    weights = torch.arange(1.0, 6.0)
    same_gradients(flow, (weights * found).sum(), (weights * expected).sum())


@pytest.mark.parametrize("name", ["three dense layers", "mixture", "coupling"])
def test_any_other_flow_sums_over_directions(name, monkeypatch):
    flow = FLOWS[name]()
    monkeypatch.delattr(density_module.Evaluation, "laplacian")
    with pytest.raises(AttributeError, match="laplacian"):
        flow.at(at(flow)).laplacian()


class Traced(torch.nn.Module):
    """A flow as a module whose value is its exact trace."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return self.flow.at(x).laplacian()


def test_the_gradient_of_a_trace_may_be_differentiated():
    flow = net((3,), depth=2)
    x, (weight, *_) = at(flow), flow.parameters()

    def loss(w):
        weights = {"flow.layers.0.weight": w}
        return torch.func.functional_call(Traced(flow), weights, (x,)).sum()

    assert torch.autograd.gradgradcheck(loss, weight.detach().clone().requires_grad_())


# Copies, and types of less precision


@flows
def test_copies_and_pickles_are_alike_and_their_own(name):
    flow, density, x = setting(name)
    with torch.no_grad():
        expected = density.log_prob(x)
    twins = [copy.deepcopy(flow)]
    if name not in ("spectral", "weight norm"):  # torch pickles no parametrized module
        twins.append(pickle.loads(pickle.dumps(flow)))
    for twin in twins:
        with torch.no_grad():
            assert torch.equal(twin(contexts(flow)).log_prob(x), expected)
            for p in twin.parameters():
                p.mul_(1.1)
            assert torch.equal(density.log_prob(x), expected)


NEAR = {
    "dense": lambda: net((4,), bias=0.3),
    "zero": lambda: images(noise=0.1),
    "given": lambda: named("dense", (3,), 0.05, depth=2, context=CONTEXT),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NEAR)
def test_half_precision(name, dtype):
    """log p with gradients, the score, the inverse and samples, near those of float64."""
    flow = NEAR[name]()
    x, c = at(flow).to(dtype), contexts(flow)
    single = copy.deepcopy(flow).to(dtype)
    density, half = flow(c), single(c)
    expected, found = density.log_prob(x.double()), half.log_prob(x)
    assert found.dtype == dtype
    near = dict(rtol=20 * torch.finfo(dtype).eps, atol=20 * torch.finfo(dtype).eps)
    near["check_dtype"] = False
    torch.testing.assert_close(found, expected, **near)
    found.sum().backward()
    for p in single.parameters():
        assert p.grad is None or (p.grad.dtype == dtype and p.grad.isfinite().all())
    torch.testing.assert_close(half.score(x), density.score(x.double()), **near)
    u = half.to_latent(x)
    for gradient in (False, True):  # by cached factors, and without
        with torch.set_grad_enabled(gradient):
            again = half.from_latent(u)
            assert again.dtype == dtype
            torch.testing.assert_close(again, x, **near)
    assert half.sample((3,), generator=seeded()).isfinite().all()


@pytest.mark.parametrize("name", FLOWS)
def test_the_energy_of_finite_points_is_never_nan(name):
    """The density is zero at points at which numbers overflow."""
    flow = FLOWS[name]().float()
    signs = at(flow, 32).float().sign()
    c = contexts(flow, 32)
    for size in (1e18, 1e30, 3e38):
        with torch.no_grad():
            log_p = flow.log_prob(size * signs, context=None if c is None else c.float())
        assert not log_p.isnan().any() and (log_p < -500).all()
