"""Properties of every bijection: round trip, log-determinant, and the score chain's parts."""

import pytest
import torch

from ebflow.bijections import ConstantJacobian, Dequantize, Weighted

from .. import reference
from .cases import CASES, directions, points

CLOSE = dict(rtol=1e-9, atol=1e-9)
everything = pytest.mark.parametrize("name", CASES)
linear = pytest.mark.parametrize("name", [n for n in CASES if CASES[n]()[0].constant_jacobian])


def case(name):
    layer, shape = CASES[name]()
    return layer, points(layer, shape)


def psi(layer, x):
    """The input-dependent log-determinant, by slogdet; zero where the Jacobian is constant."""
    if layer.constant_jacobian:
        return 0 * reference.total(x)
    return reference.log_det(layer, x)


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found).expand_as(expected), expected, **CLOSE)


def gradients_agree(layer, found, expected):
    """Compares parameter gradients of two scalars."""
    named = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    nothing = sum((0 * p.sum() for p in named.values()), start=torch.zeros(()))
    if named:
        pairs = (reference.gradients(t + nothing, list(named.values())) for t in (found, expected))
        for name, a, b in zip(named, *pairs, strict=True):
            torch.testing.assert_close(a, b, **CLOSE, msg=lambda m, n=name: f"{layer} {n}: {m}")


@everything
def test_value_inverse_and_log_det(name):
    layer, x = case(name)
    y = layer(x)
    close(layer.inverse(y), x.floor() if isinstance(layer, Dequantize) else x)
    value, found = layer.forward_and_log_det(x)
    for again in (value, layer.linearize(x).y):
        close(again, y)
    expected = reference.log_det(layer, x)
    assert found.shape == (len(x),)
    close(found, expected)
    close(layer.linearize(x).log_det(), psi(layer, x))
    gradients_agree(layer, (found * found).sum(), (expected * expected).sum())
    with torch.no_grad():
        close(layer.forward_and_log_det(x)[1], expected.detach())
    assert repr(layer).startswith(type(layer).__name__)


@everything
@pytest.mark.parametrize("differentiable", [False, True])
def test_pullback(name, differentiable):
    """Of a score that depends on y, as all do; with and without a gradient in x."""
    layer, x = case(name)
    x = x.requires_grad_(differentiable)
    s = directions(layer(x).detach(), 0)
    z = reference.leaf(x)
    y, volume = layer(z), psi(layer, z)
    target = ((s + y).detach() * y).sum() + volume.sum()
    expected = torch.autograd.grad(target, z, create_graph=True)[0]
    at = layer.linearize(x)
    found = at.pullback(s + at.y)
    close(found, expected)
    (mapped,) = torch.autograd.grad(y, z, s + y, create_graph=True)
    bent = mapped
    if volume.requires_grad:
        bent = bent + torch.autograd.grad(volume.sum(), z, create_graph=True)[0]
    gradients_agree(layer, (found**2).sum(), (bent**2).sum())


@everything
def test_tangent_and_curvature(name):
    layer, x = case(name)
    v, s = directions(x, 2), directions(layer(x).detach(), 0, seed=5)

    def value(row, t):
        z = line(x, row, t)
        return reference.total(s * layer(z)) + psi(layer, z)

    slopes = torch.stack([reference.along(lambda t, r=r: layer(line(x, r, t)), 5)[1] for r in v])
    bends = torch.stack([reference.along(lambda t, r=r: value(r, t), 5)[2] for r in v])
    at = layer.linearize(x)
    tangent, curvature = at.tangent(v), torch.as_tensor(at.curvature(v, s))
    close(tangent, slopes)
    close(curvature, bends)
    gradients_agree(layer, (tangent**2).sum(), (slopes**2).sum())
    gradients_agree(layer, curvature.pow(2).sum(), (bends**2).sum())


@everything
def test_directions_may_be_shared_by_all_points(name):
    """The exact trace sends the same D directions, with shape (K, 1, *event), through all."""
    layer, x = case(name)
    s, shared = directions(layer(x).detach(), 0), directions(x[:1], 3)
    at, each = layer.linearize(x), shared.expand(-1, *x.shape)
    close(at.curvature(shared, s), torch.as_tensor(at.curvature(each, s)).expand(3, len(x)))
    tangent = at.tangent(each)
    close(at.tangent(shared).expand_as(tangent), tangent)


@everything
def test_parts_work_without_gradient(name):
    layer, x = case(name)
    v, s = directions(x, 2), directions(layer(x).detach(), 0)

    def parts():
        at = layer.linearize(x)
        return at.pullback(s), at.tangent(v), at.curvature(v, s)

    expected = parts()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = parts()
        for part, whole in zip(found, expected, strict=True):
            close(part, torch.as_tensor(whole).detach())


@linear
def test_constant_jacobian_is_two_linear_maps(name):
    layer, x = case(name)
    J = reference.jacobian(layer, x)
    v, s = directions(x, 0), directions(layer(x), 0)
    assert isinstance(layer, ConstantJacobian)
    close(J, J[:1].expand_as(J))
    close(layer.linear(v).flatten(1), torch.einsum("bij,bj->bi", J, v.flatten(1)))
    close(layer.transpose(s).flatten(1), torch.einsum("bij,bi->bj", J, s.flatten(1)))
    close(layer.log_det(), torch.linalg.slogdet(J[0])[1])
    assert layer.log_det().shape == ()


@linear
def test_inverse_is_differentiable(name):
    layer, x = case(name)
    if isinstance(layer, Dequantize):  # it rounds
        return
    y, origin = layer(x).detach().requires_grad_(), torch.zeros_like(x[:1])
    J = reference.jacobian(layer, origin)[0]
    solved = torch.linalg.solve(J, (y - layer(origin)).flatten(1).mT).mT.view_as(x)
    sums = [t.sin().sum() for t in (layer.inverse(y), solved)]
    close(*(torch.autograd.grad(t, y, retain_graph=True)[0] for t in sums))
    gradients_agree(layer, *sums)


@linear
def test_volume_parameters_are_those_of_the_log_det(name):
    layer, _ = case(name)
    if not isinstance(layer, Weighted):
        return
    parameters, value = [p for p in layer.parameters() if p.requires_grad], layer.log_det()
    moved = set()
    if value.requires_grad:
        found = zip(parameters, reference.gradients(value, parameters), strict=True)
        moved = {id(p) for p, g in found if g.abs().max() > 0}
    assert {id(p) for p in layer.volume_parameters()} == moved


@everything
def test_what_acts_on_every_element_alone_says_so(name):
    """If it is one function, order does not matter to it."""
    layer, x = case(name)
    if layer.pixelwise:
        order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(0))
        shuffled = x.flatten(1)[:, order].view(x.shape)
        close(layer(shuffled).flatten(1), layer(x).flatten(1)[:, order])
    elif name in ("affine", "affine-trainable", "dense", "reshape", "permutation"):
        return
    assert layer.pixelwise == (name.split("-")[0] in ("relu", "logit", "dequantize") or
                               name == "affine-scalar")  # fmt: skip


def line(x, v, t):
    """Returns x + t v, with one t a sample."""
    return x + t.view(-1, *[1] * (x.ndim - 1)) * v
