"""Affine maps given a context, against their formula, row by row."""

import pytest
import torch

from ebflow.bijections import ConditionalAffine
from ebflow.bijections.conditional import BOUND

from .. import reference
from .cases import seeded, stirred

CLOSE = dict(rtol=1e-12, atol=1e-12)

shapes = pytest.mark.parametrize("shape", [(3,), (2, 1, 2)])


def setting(shape, rows=4, copies=1):
    layer = stirred(ConditionalAffine(shape, 2, hidden=3))
    c = torch.randn(rows, 2, generator=seeded(6))
    return layer, c, torch.randn(rows * copies, *shape, generator=seeded(7))


def by_hand(layer, c, x):
    """Returns y and ψ, one row after another."""
    rows, logs = [], []
    for k, row in enumerate(x):
        given = c[k % len(c)]
        s, t = (layer.line(given) + layer.bend(given[None])[0]).chunk(2)
        s, t = (p.view(-1, *[1] * (row.ndim - 1)) for p in (BOUND * torch.tanh(s / BOUND), t))
        rows.append(row * s.exp() + t)
        logs.append(s.sum() * row[0].numel())
    return torch.stack(rows), torch.stack(logs)


@shapes
@pytest.mark.parametrize("copies", [1, 3])
def test_it_is_the_formula_row_by_row(shape, copies):
    layer, c, x = setting(shape, copies=copies)
    given, (y, log_det) = layer.condition(c), by_hand(layer, c, x)
    found = given.forward_and_log_det(x)
    named = list(layer.parameters())
    for a, b in zip(found, (y, log_det), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
        pairs = (reference.gradients(t.sin().sum(), named) for t in (a, b))
        for one, other in zip(*pairs, strict=True):
            torch.testing.assert_close(one, other, **CLOSE)
    torch.testing.assert_close(given.inverse(y), x, **CLOSE)
    assert not given.constant_jacobian


def test_scales_by_contexts_are_bounded():
    layer, _, x = setting((3,))
    far = 1e6 * torch.randn(4, 2, generator=seeded(1))
    log_scale = layer.condition(far).rows[:, :3]
    assert log_scale.abs().max() <= BOUND + 1e-12 and log_scale.abs().max() > 2.9


def test_without_a_context_it_is_no_map():
    layer, _, x = setting((3,))
    for call in (layer, layer.forward_and_log_det, layer.inverse):
        with pytest.raises(ValueError, match=r"context: found None, expected shape \(\*, 2\)"):
            call(x)
    with pytest.raises(ValueError, match="context: found 0, expected at least one"):
        ConditionalAffine((3,), 0)


def test_starts_come_from_the_generator_alone():
    state = torch.get_rng_state()
    one, same, other = (
        ConditionalAffine((3,), 2, generator=generator)
        for generator in (seeded(1), seeded(1), seeded(2))
    )
    weights = [layer.bend[0].weight for layer in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    # nn.Linear draws from the global state what is zeroed at once: it must be given back.
    assert torch.equal(torch.get_rng_state(), state)
