"""Toy densities: samples against the published formulas."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from ebflow import toy
from ebflow.randomness import generator as derive
from tests.library.reference import two_sided


def official_sine(rng, n):
    a = rng.uniform(-2, 2, n)
    return 4 * np.stack([a, np.sin(3 * a) + 0.25 * rng.normal(size=n)], 1)


def official_swirl(rng, n):
    length = np.sqrt(rng.random(n)) * 540 * (2 * np.pi) / 360
    x = -np.cos(length) * length + rng.random(n) * 0.5 - 1
    y = np.sin(length) * length + rng.random(n) * 0.5 - 2
    return np.stack([-x, -y], 1) / 3 * 2.5


def official_checkerboard(rng, n):
    x = rng.random(n) * 4 - 2
    y = rng.random(n) - rng.integers(0, 2, n) * 2 + np.floor(x) % 2
    return np.stack([x, y], 1) * 3


OFFICIAL = {"sine": official_sine, "swirl": official_swirl, "checkerboard": official_checkerboard}
FREQUENCIES = torch.tensor(
    [[0.2, 0.1], [0.5, -0.3], [0.0, 1.0], [1.0, 0.4], [0.1, -2.0]], dtype=torch.float64
)


def waves(x):
    """Returns cosines and sines of ``x``: their means differ if distributions do."""
    phase = x @ FREQUENCIES.mT
    return torch.cat([phase.cos(), phase.sin()], 1)


@pytest.mark.parametrize("name", OFFICIAL)
def test_samples_have_the_distribution_of_the_official_formula(name):
    """Characteristic functions of 40,000 samples each; false alarms: 1e-4."""
    ours = waves(toy.SAMPLERS[name](40_000, generator=derive(0, name)))
    other = waves(torch.as_tensor(OFFICIAL[name](np.random.default_rng(0), 40_000)))
    spread = ((ours.var(0) + other.var(0)) / 40_000).sqrt()
    z = (ours.mean(0) - other.mean(0)) / spread
    assert z.abs().max() < two_sided(1e-4, z.numel())


def test_multimodal10_hides_nine_normals():
    """y_i / (y_{i−1} + 2^{i+1}) is tanh(5 n): Kolmogorov-Smirnov; false alarms: 1e-3."""
    y = toy.multimodal10(5_000, generator=derive(0))
    assert y.shape == (5_000, 10)
    columns = [y[:, 0]]
    for i in range(1, 10):
        ratio = y[:, i] / (y[:, i - 1] + 2.0 ** (i + 1))
        columns.append(ratio.clamp(-1 + 1e-16, 1 - 1e-16).atanh() / 5)
    for column in columns:
        assert kstest(column.numpy(), "norm").pvalue > 1e-4
    torch.testing.assert_close((y > 0).double().mean(0), torch.full((10,), 0.5), rtol=0, atol=0.04)


@pytest.mark.parametrize("name", toy.SAMPLERS)
def test_same_seed_same_samples(name):
    one, other, third = (toy.SAMPLERS[name](50, generator=derive(s)) for s in (0, 0, 1))
    assert torch.equal(one, other) and not torch.equal(one, third)
    assert one.dtype == torch.float64


def test_the_exact_density_of_multimodal10_is_that_of_its_jacobian():
    """log p = log N(noise) − log |det J|, with J by autograd."""
    noise = 0.3 * torch.randn(4, 10, generator=derive(1), dtype=torch.float64)
    found = toy.hops_log_prob(noise)
    for row, log_prob in zip(noise, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda z: toy.hops(z[None])[0], row)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(row).sum()
        expected = normal - torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(log_prob, expected)


def test_modes_of_multimodal10_are_the_signs_of_its_noise():
    noise = torch.randn(5_000, 10, generator=derive(2), dtype=torch.float64)
    signs = (noise[:, 1:] > 0).long() @ 2 ** torch.arange(9)
    modes = toy.mode(toy.hops(noise))
    assert torch.equal(modes, signs) and len(modes.unique()) > 500
