"""Directions, and trace estimators: means and variances against closed forms, by Monte Carlo.

A variance has the standard error √((m₄ − m₂²)/N); tests allow 4.5 of them (a false alarm in
1.5e5).
"""

import pytest
import torch

from ebflow.density import EnergyFunction
from ebflow.objectives import DIFFERENCES, DIRECTIONS, ESTIMATORS, draw_directions
from ebflow.randomness import generator as derive

from . import reference
from .bijections.cases import matrix, seeded

DRAWS, SIZE, STEP = 20_000, 4, 0.5


def trace_variance(estimator, gradient, hessian, directions="gaussian", slices=1, step=1.0):
    """Returns the variance of the mean of K estimates at a point, to leading order in the step."""
    linear = 4 / step**2 * gradient.square().sum() if estimator == "taylor" else 0.0
    return (of_form(hessian, directions, slices) + linear) / slices


def of_form(hessian, directions, slices):
    """Returns K times the variance of the mean of u·H·u over K directions."""
    size, squares, diagonal = len(hessian), hessian.square().sum(), hessian.diagonal()
    if directions == "gaussian":
        return 2 * squares
    if directions == "rademacher":
        return 2 * (squares - diagonal.square().sum())
    spread = 2 * size / (size + 2) * (squares - diagonal.sum().square() / size)
    # All D orthogonal directions give the trace itself, which fixes the covariance of two.
    return spread * (1 - (slices - 1) / (size - 1)) if directions == "orthogonal" else spread


def quadratic():
    """Returns f = g·x + x·H·x / 2 without definite sign, and its derivatives at 0."""
    gradient = torch.linspace(-1, 1.5, SIZE)
    hessian = matrix(SIZE) - 2 * matrix(SIZE, 1)
    hessian = hessian + hessian.mT
    density = EnergyFunction(lambda x: -(x @ gradient + ((x @ hessian) * x).sum(1) / 2))
    return density, gradient, hessian


def draws(estimator, density, kind="gaussian", slices=1, step=STEP, x=None):
    """Returns N means of K estimates."""
    x = torch.zeros(DRAWS, SIZE) if x is None else x.expand(DRAWS, -1)
    u = draw_directions(kind, slices, x, derive(1))
    return ESTIMATORS[estimator](density, x, u, step)[1].mean(0).detach()


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("kind", DIRECTIONS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_mean_and_variance_on_a_quadratic(estimator, kind, slices):
    density, gradient, hessian = quadratic()
    found = draws(estimator, density, kind, slices)
    assert abs(found.mean() - hessian.trace()) < 4.5 * found.std() / DRAWS**0.5
    centred = found - found.mean()
    second, fourth = centred.square().mean(), centred.pow(4).mean()
    expected = trace_variance(
        estimator, gradient, hessian, directions=kind, slices=slices, step=STEP
    )
    error = ((fourth - second**2) / DRAWS).sqrt()
    assert abs(second - expected) < 4.5 * error, (second, expected)


def test_one_sided_variance_grows_as_the_step_falls_and_the_control_variate_removes_it():
    density, gradient, _ = quadratic()
    one, cv = (draws(name, density, step=0.01) for name in ("taylor", "taylor_cv"))
    assert one.std() > 20 * cv.std()
    assert one.var() == pytest.approx(4e4 * float(gradient.square().sum()), rel=0.1)


@pytest.mark.parametrize(("kind", "factor"), [("gaussian", 6), ("rademacher", 2)])
@pytest.mark.parametrize("estimator", DIFFERENCES)
def test_bias_on_a_quartic(estimator, kind, factor):
    """Of Σ x⁴ the mean is tr H + 6 D σ² for Gaussian directions and + 2 D σ² for signs."""
    x = torch.linspace(-0.5, 0.5, SIZE)
    density = EnergyFunction(lambda x: -((x**4).sum(1)))
    found = draws(estimator, density, kind, x=x)
    bias = found.mean() - 12 * x.square().sum()
    error = 4.5 * found.std() / DRAWS**0.5
    assert abs(bias - factor * SIZE * STEP**2) < error + 1e-9


@pytest.mark.parametrize("kind", ["gaussian", "rademacher"])
def test_bias_on_a_product_of_squares(kind):
    """Of f = x₁² x₂² at 0 both have 2 σ²: Δ²f = 8, and no fourth derivative of one x."""
    density = EnergyFunction(lambda x: -(x[:, 0].square() * x[:, 1].square()))
    found = draws("taylor_cv", density, kind)
    assert abs(found.mean() - 2 * STEP**2) < 4.5 * found.std() / DRAWS**0.5 + 1e-9


def test_the_one_sided_variance_of_a_cubic():
    """Of f = Σ g x + h x²/2 + t x³/6 at 0: 4 g·t beside the leading order, and 5/3 σ² ‖t‖²."""
    g, h, t = torch.linspace(0.5, 1.5, SIZE), torch.linspace(-1, 1, SIZE), torch.full((SIZE,), 2.0)
    density = EnergyFunction(lambda x: -((g * x + h * x**2 / 2 + t * x**3 / 6).sum(1)))
    found = draws("taylor", density)
    leading = trace_variance("taylor", g, h.diag(), step=STEP)
    expected = leading + 4 * g @ t + 5 / 3 * STEP**2 * t @ t
    centred = found - found.mean()
    second, fourth = centred.square().mean(), centred.pow(4).mean()
    error = ((fourth - second**2) / DRAWS).sqrt()
    assert abs(second - expected) < 4.5 * error
    assert expected - leading > 20 * error


def test_all_estimators_give_the_score():
    density, gradient, hessian = quadratic()
    x = torch.randn(5, SIZE, generator=seeded())
    u = draw_directions("rademacher", 2, x, derive(0))
    for name, estimate in ESTIMATORS.items():
        score, traces = estimate(density, x, u, 0.1)
        torch.testing.assert_close(score, gradient + x @ hessian, msg=name)
        assert traces.shape == (2, 5), name


def test_a_training_step_pays_for_energies_alone():
    """K differences are one evaluation of the log-density at K B points, and one at the data."""
    seen = []

    def log_p(x):
        seen.append(len(x))
        return -(x**4).sum(1)

    x = torch.randn(5, SIZE, generator=seeded())
    for name, energies in (("taylor", 1), ("taylor_cv", 1), ("two_sided", 2)):
        seen.clear()
        u = draw_directions("sphere", 3, x, derive(0))
        DIFFERENCES[name](EnergyFunction(lambda x: -log_p(x)), x, u, 0.1)
        assert seen == [5, 15 * energies], name


# Directions


kinds = pytest.mark.parametrize("kind", DIRECTIONS)


@kinds
@pytest.mark.parametrize("event", [(3,), (1, 2, 2)])
@pytest.mark.parametrize("slices", [1, 3])
def test_mean_outer_product_is_the_identity(kind, event, slices):
    """A z-test of mean and second moments at a false-alarm rate of 1e-3 in all."""
    x = torch.zeros(20_000, *event)
    v = draw_directions(kind, slices, x, derive(0))
    assert v.shape == (slices, *x.shape)
    rows = v.flatten(2)
    size = rows.shape[2]
    products = torch.einsum("kbi,kbj->bkij", rows, rows).mean(1).flatten(1)
    found = torch.cat([rows.mean(0), products], 1)
    expected = torch.cat([torch.zeros(size), torch.eye(size).flatten()])
    error = found.std(0) / len(x) ** 0.5 + 1e-12
    z = (found.mean(0) - expected) / error
    assert z.abs().max() < reference.two_sided(1e-3, z.numel()), z


@pytest.mark.parametrize("kind", ["rademacher", "sphere", "orthogonal"])
def test_norm_is_the_root_of_the_dimension(kind):
    v = draw_directions(kind, 4, torch.zeros(50, 7), derive(0))
    torch.testing.assert_close(v.norm(dim=2), torch.full((4, 50), 7**0.5))


@pytest.mark.parametrize("slices", [2, 5, 40])
def test_orthogonal_directions_are(slices):
    v = draw_directions("orthogonal", slices, torch.zeros(10, 40), derive(0))
    products = torch.einsum("kbi,lbi->bkl", v, v)
    expected = 40 * torch.eye(slices).expand(10, -1, -1)
    torch.testing.assert_close(products, expected, rtol=0, atol=1e-12)


def test_orthogonal_directions_of_examples_are_independent():
    v = draw_directions("orthogonal", 1, torch.zeros(4000, 2), derive(0))[0]
    angles = (v[::2] * v[1::2]).sum(1) / 2
    assert abs(float(angles.mean())) < 4.5 / (2 * 2000) ** 0.5


def test_there_are_no_more_orthogonal_directions_than_dimensions():
    with pytest.raises(ValueError, match="slices: found 5, expected at most D = 4"):
        draw_directions("orthogonal", 5, torch.zeros(3, 1, 2, 2), derive(0))


def test_unknown_directions_are_refused():
    with pytest.raises(ValueError, match="directions: found 'gauss', expected one of rademacher"):
        draw_directions("gauss", 1, torch.zeros(3, 2), derive(0))
