"""Densities of which the energy alone is known, by autograd; and how one of one's own is made."""

import pytest
import torch
from scipy.stats import multivariate_normal

from ebflow.density import EnergyFunction, LogDensity

from .bijections.cases import matrix, seeded


class Gaussian(LogDensity):
    """A Gaussian by its precision: one method."""

    def __init__(self, precision):
        self.precision = precision

    def energy(self, x):
        return torch.einsum("bi,ij,bj->b", x, self.precision, x) / 2


def setting(make=Gaussian):
    """Returns a Gaussian's density, its precision and some points."""
    precision = matrix(3) @ matrix(3).mT
    return make(precision), precision, torch.randn(5, 3, generator=seeded())


MAKERS = {"a class": Gaussian, "a function": lambda p: EnergyFunction(Gaussian(p).energy)}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@makers
def test_a_gaussian(make):
    density, precision, x = setting(make)
    exact = -multivariate_normal(cov=torch.linalg.inv(precision).numpy()).logpdf(x.numpy())
    assert (density.energy(x) - torch.as_tensor(exact)).std() < 1e-12
    v, expected = torch.randn(2, 5, 3, generator=seeded(1)), -x @ precision
    slope, bend = (v * expected).sum(-1), -torch.einsum("kbi,ij,kbj->kb", v, precision, v)
    trace = -precision.trace().expand(5)
    at = density.at(x)
    found = [density.score(x), *density.directional(x, v)]
    found += [at.energy, at.laplacian(), at.curvature(v)]
    wanted = expected, slope, bend, density.energy(x), trace, bend
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert not x.requires_grad and x.grad is None
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(density.score(x.clone()), expected)
            torch.testing.assert_close(density.at(x.clone()).curvature(v), bend)


@makers
def test_no_points(make):
    density, _, x = setting(make)
    at = density.at(x[:0])
    assert at.score.shape == (0, 3) and at.laplacian().shape == (0,)


def test_a_linear_density_has_no_curvature():
    density = EnergyFunction(lambda x: -x.sum(1))
    x = torch.randn(5, 3, generator=seeded())
    assert torch.equal(density.score(x), torch.ones(5, 3))
    assert torch.equal(density.at(x).laplacian(), torch.zeros(5))


def test_the_energy_is_needed():
    with pytest.raises(TypeError, match="energy"):
        LogDensity()
