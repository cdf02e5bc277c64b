"""The autograd fallback against closed forms."""

import torch
from scipy.stats import multivariate_normal

from ebflow.density import AutogradDensity

from .bijections.cases import matrix, seeded


def gaussian():
    """Returns a Gaussian's density, its precision and some points."""
    precision = matrix(3) @ matrix(3).mT
    x = torch.randn(5, 3, generator=seeded())
    return (
        AutogradDensity(lambda x: -torch.einsum("bi,ij,bj->b", x, precision, x) / 2),
        precision,
        x,
    )


def test_gaussian_energy_up_to_a_constant():
    density, precision, x = gaussian()
    exact = -multivariate_normal(cov=torch.linalg.inv(precision).numpy()).logpdf(x.numpy())
    difference = density.energy(x) - torch.as_tensor(exact)
    assert difference.std() < 1e-12


def test_gaussian_score_and_curvature():
    density, precision, x = gaussian()
    v = torch.randn(2, 5, 3, generator=seeded(1))
    score, curvature = density.score_and_curvature(x, v)
    torch.testing.assert_close(score, -x @ precision)
    torch.testing.assert_close(curvature, -torch.einsum("kbi,ij,kbj->kb", v, precision, v))
    slope, again = density.directional(x, v)
    torch.testing.assert_close(slope, torch.einsum("kbi,bi->kb", v, -x @ precision))
    torch.testing.assert_close(again, curvature)


def test_energy_and_laplacian_beside_the_score():
    density, precision, x = gaussian()
    energy, score = density.energy_and_score(x)
    torch.testing.assert_close(energy, density.energy(x))
    torch.testing.assert_close(score, -x @ precision)
    score, laplacian = density.score_and_laplacian(x)
    torch.testing.assert_close(score, -x @ precision)
    torch.testing.assert_close(laplacian, -precision.trace().expand(5))


def test_points_are_left_alone():
    density, _, x = gaussian()
    density.score(x)
    assert not x.requires_grad and x.grad is None


def test_score_without_gradient_mode():
    density, precision, x = gaussian()
    with torch.no_grad():
        torch.testing.assert_close(density.score(x), -x @ precision)
