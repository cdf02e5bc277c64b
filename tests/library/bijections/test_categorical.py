"""Categories have exact probabilities: they sum to one, and do not depend on noise."""

import itertools
import math

import pytest
import torch

from ebflow.architectures import autoregressive
from ebflow.bijections import Categorical

from .cases import seeded, stirred

MIXED, ALL, ONE = (0, 3, 0, 2, 5), (3, 4, 2), (7,)


def flow_of(sizes, context=0, **options):
    """Returns a flow of categories and reals, away from its start."""
    flow = autoregressive((len(sizes),), bins=4, hidden=16, categories=sizes, context=context,
                          dtype=torch.float64, **options)  # fmt: skip
    return stirred(flow, 0.2).eval().requires_grad_(False)


def rows_of(sizes, count=50, seed=0):
    """Returns rows with noise on the levels."""
    generator = seeded(seed)
    columns = [torch.rand(count, generator=generator) * size if size
               else torch.randn(count, generator=generator) for size in sizes]  # fmt: skip
    return torch.stack(columns, 1).double()


def table(sizes, row):
    """Returns a row with all combinations of levels."""
    levels = [torch.arange(size) + 0.5 if size else row[k, None] for k, size in enumerate(sizes)]
    return torch.stack([torch.stack(found) for found in itertools.product(*levels)]).double()


@pytest.mark.parametrize("sizes", [ALL, ONE])
@pytest.mark.parametrize("context", [0, 2])
def test_probabilities_of_all_levels_sum_to_one(sizes, context):
    flow = flow_of(sizes, context)
    rows = table(sizes, None)
    given = torch.randn(1, 2, generator=seeded()).double() if context else None
    total = flow.log_prob(rows, context=given).exp().sum()
    assert total == pytest.approx(1, abs=1e-12)


def test_reals_and_categories_together_integrate_to_one():
    flow = flow_of((0, 3, 2))
    grid = torch.linspace(-12, 12, 4001).double()
    rows = torch.cat([torch.cat([grid[:, None], torch.tensor([k, j]).double().expand(4001, 2)], 1)
                      for k in range(3) for j in range(2)])  # fmt: skip
    mass = flow.log_prob(rows).exp().view(6, -1).sum(1) * (grid[1] - grid[0])
    assert mass.sum() == pytest.approx(1, abs=1e-5)
    assert (mass > 0.01).all()


@pytest.mark.parametrize("sizes", [MIXED, ALL, ONE])
@pytest.mark.parametrize("context", [0, 2])
def test_the_place_in_a_cell_does_not_matter(sizes, context):
    flow, x = flow_of(sizes, context), rows_of(sizes)
    given = torch.randn(50, 2, generator=seeded(1)).double() if context else None
    discrete = torch.tensor(sizes) > 0
    other = torch.where(discrete, x.floor() + 0.25, x)
    values = [flow.log_prob(rows, context=given) for rows in (x, other)]
    torch.testing.assert_close(*values, rtol=0, atol=1e-12)
    assert (flow.score(x, context=given)[:, discrete] == 0).all()
    back = flow.from_latent(flow.to_latent(x, context=given), context=given)
    assert (back - x).abs().max() < 2e-4


def test_gradients_of_log_probabilities_are_those_of_a_softmax():
    layer = Categorical([4], counts=[[1, 2, 3, 4]]).double()
    y = torch.tensor([[0.2], [3.9]]).double()
    u, log_slope = layer.forward_and_log_det(y)
    log_p = log_slope - 0.5 * u[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
    log_p.sum().backward()
    p = layer.bias.detach().softmax(1)[0]
    one_hot = torch.eye(4).double()
    torch.testing.assert_close(layer.bias.grad[0], one_hot[0] + one_hot[3] - 2 * p)


def test_the_start_has_smoothed_frequencies():
    counts = [[900, 100, 0], [500, 500]]
    flow = autoregressive((2,), categories=(3, 2), counts=counts, dtype=torch.float64)
    log_p = flow.log_prob(table((3, 2), None)).detach().view(3, 2).exp().sum(1)
    expected = (torch.tensor(counts[0]) + 0.5) / 1001.5
    torch.testing.assert_close(log_p, expected.double())


def test_samples_have_the_frequencies():
    flow = flow_of((3, 0, 4)).float()
    x = flow.sample(40_000, generator=seeded())
    found = torch.bincount((x[:, 0].floor() * 4 + x[:, 2].floor()).long(), minlength=12) / 40_000
    layer = flow.layers[-1]
    pairs = table((3, 4), None).float()
    with torch.no_grad():
        u, log_slope = layer.forward_and_log_det(torch.cat([pairs[:, :1] * 0, pairs], 1))
    p = (log_slope - 0.5 * u[:, 1:].square().sum(1)).exp() / (2 * math.pi)
    deviations = (found - p).abs() / (p * (1 - p) / 40_000).sqrt()  # 12 numbers: P(any > 4) < 1e-3
    assert p.sum() == pytest.approx(1, abs=1e-5) and deviations.max() < 4


def test_values_that_no_row_has_are_nearly_impossible():
    flow = flow_of((3,))
    inside, beyond, far = flow.log_prob(torch.tensor([[2.5], [3.5], [5.5]]).double())
    assert beyond < inside and beyond == pytest.approx(math.log(2.5e-7))
    assert far - beyond == pytest.approx(-2 * math.log(2))
