"""Cells of the columns of tables: grids, levels, atoms, squeezed gaps and known bounds."""

import math

import numpy as np
import pytest
import torch

import ebflow
from ebflow.bases import GaussianMixture
from ebflow.bijections import Affine, Cells, ColumnCells, Knot
from ebflow.randomness import generator

GRID = ColumnCells(43.0, 0.1, 1, least=43.0, most=79.0)
LEVELS = ColumnCells(
    1 / 3, knots=[Knot(1 / 3, 1 / 3, 1 / 3), Knot(2 / 3, 0.5, 0.5)], least=1 / 3, most=2 / 3
)
ATOM = ColumnCells(1.0, knots=[Knot(0.0, 2.5), Knot(3.0, 0.5)], least=0.0)
SPIKE = ColumnCells(0.0, 1.0, knots=[Knot(0.0, 9.0, 1.0), Knot(5.0, 4.0, 1.0)], least=0, most=9)
GAP = ColumnCells(0.3, knots=[Knot(-999.0, 2.0, slope=0.002), Knot(-4.0)], least=-999.0)
KINDS = {"grid": GRID, "levels": LEVELS, "atoms": ATOM, "spikes": SPIKE, "gap": GAP}
kinds = pytest.mark.parametrize("column", KINDS.values(), ids=KINDS)
precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def values(column, count=2000):
    """Returns values of a column: those with cells, and, if it is continuous, others."""
    random = np.random.default_rng(0)
    if column.step:
        x = column.least + column.step * random.integers(0, 10, count)
        return torch.tensor(np.round(x, column.decimals))[:, None]
    special = column.levels or column.atoms
    x = random.choice(special, count)
    x = (
        x
        if column.levels
        else np.where(random.random(count) < 0.5, x, random.lognormal(size=count))
    )
    return torch.tensor(x)[:, None]


def flow_of(column, dtype=torch.float64, **bounds):
    """Returns the flow of a normal density of the dequantized column."""
    cells = Cells([column])
    low, high = (torch.tensor([bounds.get(k, v)]).double() for k, v in
                 (("lower", -math.inf), ("upper", math.inf)))  # fmt: skip
    cells.bound(low, high)
    return ebflow.Flow((1,), [cells, Affine(1.0, 0.2, (1,))], n_preprocessing=2).to(dtype)


@kinds
@precisions
def test_values_come_back_to_the_bit_and_fill_their_cells(column, dtype):
    cells, x = Cells([column]).to(dtype), values(column)
    y = cells.dequantize(x, torch.zeros((), dtype=dtype), generator=generator(0, "noise"))
    back = cells.inverse(y)
    assert y.dtype == dtype and back.dtype == torch.float64
    start, end = cells.cells(x)
    discrete = (end > start)[:, 0]
    assert torch.equal(back[discrete], x[discrete])
    torch.testing.assert_close(back, x, atol=1e-6 if dtype == torch.float32 else 1e-12, rtol=0)
    share = ((y.double() - start) / (end - start))[discrete]
    assert 0 <= share.min() < 0.01 and 0.99 < share.max() <= 1 and 0.45 < share.mean() < 0.55


@kinds
def test_ends_of_cells_in_single_precision_stay_in_their_cells(column):
    """The noise next to 0 and to 1, far from the origin."""
    column = ColumnCells(**{**vars(column), "origin": column.origin - (not column.step) * 777.7})
    cells, x = Cells([column]), values(column)
    start, end = cells.cells(x)
    discrete = (end > start)[:, 0]
    for u in (0.0, 2.0**-24, 1 - 2.0**-24, 1 - 2.0**-53):
        noise = torch.full_like(x, u)
        back = cells.inverse(cells.add_noise(x, torch.zeros(()), noise))
        assert torch.equal(back[discrete], x[discrete])


@pytest.mark.system
@kinds
def test_the_total_mass_is_one(column):
    """Of all values with a cell, each by its exact probability, and all others by quadrature."""
    flow = flow_of(column)
    x = torch.tensor(column.levels or column.atoms or [column.least]).double()
    if column.step:
        x = column.origin + column.step * torch.arange(-400, 800)
    start, end = flow.layers[0].cells(x[:, None])
    mass = flow.log_prob(x[:, None]).exp()
    if column.step or column.levels:
        measure = column.step or torch.tensor([knot.length for knot in column.knots])
        rest = 1 - torch.special.ndtr((end.max() - 1) * 0.2) + torch.special.ndtr(
            (start.min() - 1) * 0.2)  # fmt: skip
        assert float((mass * measure).sum() + rest) == pytest.approx(1, abs=1e-6)
        return
    grid = torch.linspace(-1040, 40, 2_000_001).double()[:, None] + 1e-7
    p = flow.log_prob(grid).exp()
    assert float(torch.trapezoid(p, grid[:, 0]) + mass.sum()) == pytest.approx(1, abs=1e-4)


def test_the_density_of_a_row_is_a_mean_over_its_cells():
    """Of an atom beside a grid and a normal column."""
    cells, layer = Cells([ATOM, GRID, ColumnCells()]), Affine(1.0, 0.5, (3,))
    flow = ebflow.Flow((3,), [cells, layer], n_preprocessing=2)
    x = torch.stack([torch.zeros(200), 43 + 0.1 * (torch.arange(200) % 9), torch.randn(200)], 1)
    x = x.double()
    ends = torch.stack([(t - 1) * 0.5 for t in cells.cells(x)])
    mass = torch.special.ndtr(ends).diff(dim=0)[0, :, :2].log() - torch.tensor([1.0, 0.1]).log()
    log_p = mass.sum(1) + torch.distributions.Normal(1, 2).log_prob(x[:, 2])
    found = flow.double().log_prob(x)
    torch.testing.assert_close(found, log_p, atol=0.08, rtol=0)
    assert float((found - log_p).mean()) == pytest.approx(0, abs=8e-3)
    assert torch.equal(flow.log_prob(x[7:9]), found[7:9])


def test_the_probability_of_an_atom_is_exact_above_a_mixture():
    base = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [2.0]]), torch.ones(2))
    flow = ebflow.Flow((1,), [Cells([ATOM])], base=base)
    shares = [float((flow.sample(40_000, generator=generator(0, "x")) == v).double().mean())
              for v in ATOM.atoms]  # fmt: skip
    found = flow.log_prob(torch.tensor([[v] for v in ATOM.atoms])).exp()
    assert found.tolist() == pytest.approx(shares, abs=0.01)


@kinds
def test_a_spec_and_a_state_make_the_same_cells(column):
    cells = Cells([ColumnCells(), column])
    again = Cells.placeholder(2, *cells.spec)
    again.load_state_dict(cells.state_dict())
    x = torch.cat([values(column), values(column)], 1)
    ours, theirs = (c.dequantize(x, x, generator=generator(0, "noise")) for c in (cells, again))
    assert torch.equal(ours, theirs) and torch.equal(cells.inverse(ours), again.inverse(ours))


def test_constants_stay_in_double_precision():
    flow = flow_of(ColumnCells(1.7e9, 1.0), torch.float32)
    assert flow.layers[0].origin.dtype == torch.float64 and flow.dtype == torch.float32
    x = 1.7e9 + torch.arange(5.0).double()[:, None]
    assert torch.equal(flow.from_latent(flow.to_latent(x)), x)


@pytest.mark.parametrize("value", [0.49, 1.0, 17.3, -2.0])
def test_a_value_off_its_grid_is_used_as_it_is_and_changes_no_other(value):
    cells = Cells([ColumnCells(0.0, 1.0), ColumnCells(0.0, 2.0), ColumnCells(5.0)])
    x = torch.tensor([[3.0, value, 4.25]]).double().repeat(100, 1)
    y = cells.dequantize(x, x, generator=generator(0, "noise"))
    on_grid = value % 2 == 0
    assert (y[:, 1] == value).all() != on_grid and (y[:, 2] == -0.75).all()
    assert y[:, 0].min() < 3.05 and y[:, 0].max() > 3.95


def test_values_in_single_precision_are_on_their_grid():
    cells, x = Cells([GRID]), values(GRID)
    assert torch.equal(cells.cells(x.float().double())[0], cells.cells(x)[0])
    atoms = Cells([ColumnCells(knots=[Knot(0.1, 2.0)])])
    x = torch.tensor([[0.1], [0.1001]])
    assert (atoms.cells(x.double())[1] - atoms.cells(x.double())[0]).flatten().tolist() == [2, 0]


@precisions
def test_samples_stay_within_known_bounds_and_log_p_is_minus_infinity_beyond(dtype):
    flow = flow_of(ColumnCells(0.5), dtype, lower=0.0, upper=1.0)
    x = flow.sample((2000,), generator=generator(0, "x"))
    assert x.min() == 0 and x.max() == 1
    inside = torch.tensor([[0.0], [0.3], [1.0]]).double()
    outside = torch.tensor([[-0.01], [-1e-5], [1.00001], [7.0], [-1e30]]).double()
    assert flow.log_prob(inside).isfinite().all()
    assert (flow.log_prob(outside) == -torch.inf).all()
    assert flow.score(inside).isfinite().all()


@precisions
@pytest.mark.parametrize("upper", [5.0, 5.5, math.inf])
def test_a_grid_ends_at_its_last_value_within_known_bounds(dtype, upper):
    flow = flow_of(ColumnCells(2.0, 1.0, least=2.0, most=4.0), dtype, lower=0.0, upper=upper)
    x = torch.arange(-3.0, 10.0).double()[:, None].repeat(50, 1)
    log_p = flow.log_prob(x + torch.zeros(50 * 13, 1).double(), generator=generator(0, "noise"))
    allowed = ((x >= 0) & (x <= upper))[:, 0]
    assert torch.equal(log_p.isfinite(), allowed)
    assert set(flow.sample((3000,), generator=generator(0, "x"))[:, 0].tolist()) == {2.0, 3.0, 4.0}


def test_samples_are_in_the_domain_of_images_too():
    cells = Cells([GRID, ATOM, LEVELS, ColumnCells()])
    x = torch.cat([values(c, 9) for c in (GRID, ATOM, LEVELS, ATOM)], 1)
    noise = torch.rand(9, 4, generator=generator(0, "noise")).double()
    rows, images = (
        cells.add_noise(x.view(9, *s), x, noise.view(9, *s)) for s in ((4,), (1, 2, 2))
    )
    assert torch.equal(images.flatten(1), rows)
    assert torch.equal(cells.inverse(images).flatten(1), cells.inverse(rows))
    for one, other in zip(
        cells.forward_and_log_det(images), cells.forward_and_log_det(rows), strict=True
    ):
        assert torch.equal(one.flatten(), other.flatten())


def test_samples_of_continuous_columns_are_differentiable():
    shift = Affine(1.0, 0.2, (2,), trainable=True)
    density = ebflow.Flow((2,), [Cells([ColumnCells(5.0), ColumnCells()]), shift])()
    assert density.has_rsample
    density.rsample((3,)).sum().backward()
    assert all(p.grad.isfinite().all() and (p.grad != 0).all() for p in shift.parameters())
