"""What holds for every bijection: round trip, log-determinant, and the score chain's parts."""

import pytest
import torch

from ebflow.bijections import ConstantJacobian, Dequantise, Jet

from .. import reference
from .cases import CASES, directions, points

CLOSE = dict(rtol=1e-9, atol=1e-9)
everything = pytest.mark.parametrize("name", CASES)
linear = pytest.mark.parametrize("name", [n for n in CASES if CASES[n]()[0].constant_jacobian])
slices = pytest.mark.parametrize("slices", [1, 3])


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
    parameters = list(layer.parameters())
    parameters = [p for p in parameters if p.requires_grad]
    if not parameters:
        return
    found = found + 0 * sum(p.sum() for p in parameters)
    expected = expected + 0 * sum(p.sum() for p in parameters)
    for name, a, b in zip(
        [n for n, _ in layer.named_parameters()],
        reference.gradients(found, parameters),
        reference.gradients(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **CLOSE, msg=lambda m, n=name: f"{layer} {n}: {m}")


@everything
def test_round_trip(name):
    layer, x = case(name)
    y = layer(x)
    found = layer.inverse(y)
    close(found, x.floor() if isinstance(layer, Dequantise) else x)


@everything
def test_value_is_the_same_by_every_way(name):
    layer, x = case(name)
    y = layer(x)
    close(layer.forward_and_log_det(x)[0], y)
    close(layer.linearize(x).y, y)
    close(layer.jet(Jet(x, torch.ones_like(x), None))[0].x, y)


@everything
def test_log_det(name):
    layer, x = case(name)
    found, expected = layer.forward_and_log_det(x)[1], reference.log_det(layer, x)
    assert found.shape == (len(x),)
    close(found, expected)
    gradients_agree(layer, (found * found).sum(), (expected * expected).sum())


@everything
def test_log_det_without_gradient(name):
    layer, x = case(name)
    with torch.no_grad():
        found = layer.forward_and_log_det(x)[1]
    close(found, reference.log_det(layer, x).detach())


@everything
def test_only_input_dependent_layers_report_their_log_det_to_the_chain(name):
    layer, x = case(name)
    close(layer.linearize(x).log_det(), psi(layer, x))


@everything
@pytest.mark.parametrize("leaf", [False, True])
def test_pullback(name, leaf):
    layer, x = case(name)
    x = x.requires_grad_(leaf)
    s = directions(layer(x).detach(), 0)
    z = reference.leaf(x)
    target = (s * layer(z)).sum() + psi(layer, z).sum()
    expected = torch.autograd.grad(target, z, create_graph=True)[0]
    found = layer.linearize(x).pullback(s)
    close(found, expected)
    gradients_agree(layer, (found**2).sum(), (expected**2).sum())


@everything
@slices
def test_tangent(name, slices):
    layer, x = case(name)
    v = directions(x, slices)
    expected = torch.stack([reference.along(lambda t, r=r: layer(line(x, r, t)), 5)[1] for r in v])
    found = layer.linearize(x).tangent(v)
    close(found, expected)
    gradients_agree(layer, (found**2).sum(), (expected**2).sum())


@everything
@slices
def test_curvature(name, slices):
    layer, x = case(name)
    v, s = directions(x, slices), directions(layer(x).detach(), 0, seed=5)

    def value(row, t):
        z = line(x, row, t)
        return reference.total(s * layer(z)) + psi(layer, z)

    expected = torch.stack([reference.along(lambda t, r=r: value(r, t), 5)[2] for r in v])
    found = layer.linearize(x).curvature(v, s)
    close(found, expected)
    gradients_agree(layer, torch.as_tensor(found).pow(2).sum(), (expected**2).sum())


@everything
@pytest.mark.parametrize("slices", [0, 1, 3])
@pytest.mark.parametrize("bent", [False, True])
def test_jet(name, slices, bent):
    layer, x = case(name)
    v = directions(x, slices)
    a = directions(x, slices, seed=13) if bent else None
    rows = (
        [(v, a)] if slices == 0 else [(v[k], None if a is None else a[k]) for k in range(slices)]
    )
    values, logs = zip(*(along(layer, x, *row) for row in rows), strict=True)
    value, d1, d2 = (joined([r[i] for r in values], slices) for i in range(3))
    psi1, psi2 = (joined([r[i] for r in logs], slices) for i in (1, 2))
    jet, first, second = layer.jet(Jet(x, v, a))
    close(jet.x, value if slices == 0 else value[0])
    close(jet.v, d1)
    close(0.0 if jet.a is None else jet.a, d2)
    close(first, psi1)
    close(second, psi2)
    bend = 0.0 if jet.a is None else jet.a
    found = (jet.v * (jet.v + bend)).sum() + (torch.as_tensor(second) ** 2).sum()
    gradients_agree(layer, found, (d1 * (d1 + d2)).sum() + (psi2**2).sum())


@everything
def test_directions_may_be_shared_by_all_points(name):
    """The exact trace sends the same D directions, with shape (K, 1, *event), through all."""
    layer, x = case(name)
    s, shared = directions(layer(x).detach(), 0), directions(x[:1], 3)
    at, each = layer.linearize(x), shared.expand(-1, *x.shape)
    close(at.curvature(shared, s), torch.as_tensor(at.curvature(each, s)).expand(3, len(x)))
    for bent in (None, shared.flip(0)):
        found = layer.jet(Jet(x, shared, bent))
        expected = layer.jet(Jet(x, each, None if bent is None else bent.expand_as(each)))
        for part, whole in zip(
            (*found[0], *found[1:]), (*expected[0], *expected[1:]), strict=True
        ):
            if whole is not None:
                close(torch.as_tensor(part).expand_as(torch.as_tensor(whole)), whole)


@everything
def test_parts_work_without_gradient(name):
    layer, x = case(name)
    v, s = directions(x, 2), directions(layer(x).detach(), 0)
    with torch.no_grad():
        at = layer.linearize(x)
        found = at.pullback(s), at.tangent(v), at.curvature(v, s), *layer.jet(Jet(x, v, None))
    at = layer.linearize(x)
    expected = at.pullback(s), at.tangent(v), at.curvature(v, s), *layer.jet(Jet(x, v, None))
    for a, b in zip(found, expected, strict=True):
        for part, whole in zip(
            *((t if isinstance(t, Jet) else (t,)) for t in (a, b)), strict=True
        ):
            if whole is not None:
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
def test_volume_parameters_are_those_of_the_log_det(name):
    layer, _ = case(name)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    value = layer.log_det()
    moved = (
        {
            id(p)
            for p, g in zip(parameters, reference.gradients(value, parameters), strict=True)
            if g.abs().max() > 0
        }
        if value.requires_grad
        else set()
    )
    assert {id(p) for p in layer.volume_parameters()} == moved


@everything
def test_a_pixelwise_layer_does_the_same_to_every_element(name):
    layer, x = case(name)
    if not layer.pixelwise:
        pytest.skip("knows its elements apart")
    order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(1)[:, order].view(x.shape)
    close(layer(shuffled).flatten(1), layer(x).flatten(1)[:, order])
    off = reference.jacobian(layer, x) * (1 - torch.eye(x[0].numel()))
    assert off.abs().max() == 0


@pytest.mark.parametrize("name", ["affine", "affine-channels", "dense", "reshape", "permutation"])
def test_a_layer_that_knows_its_elements_apart_is_not_pixelwise(name):
    assert not case(name)[0].pixelwise


@everything
def test_a_diagonal_layer_tells_its_slopes_and_bends(name):
    layer, x = case(name)
    s, v = directions(layer(x).detach(), 0, seed=5), directions(x, 3)
    at = layer.linearize(x)
    parts = at.diagonal(s)
    if parts is None:
        pytest.skip("mixes elements, or has a constant Jacobian")
    slope, bend = parts
    close(slope.flatten(1).diag_embed(), reference.jacobian(layer, x))
    close(reference.total(bend * v * v, 2), at.curvature(v, s))


@linear
def test_columns_are_those_of_the_jacobian(name):
    layer, x = case(name)
    close(layer.columns(x[0]).flatten(1).mT, reference.jacobian(layer, x)[0])


@everything
def test_repr_names_the_layer(name):
    layer, _ = case(name)
    assert repr(layer).startswith(type(layer).__name__)


def line(x, v, t):
    """Returns x + t v, with one t a sample."""
    return x + t.view(-1, *[1] * (x.ndim - 1)) * v


def along(layer, x, v, a):
    """Returns the derivatives along a parabola of the layer's value, and of its ψ."""

    def curve(t):
        z = line(x, v, t)
        return z if a is None else line(z, a, t * t / 2)

    value = reference.along(lambda t: layer(curve(t)), len(x))
    return value, reference.along(lambda t: psi(layer, curve(t)), len(x))


def joined(parts, slices):
    """Stacks slices, if there are any."""
    return torch.stack(parts) if slices else parts[0]
