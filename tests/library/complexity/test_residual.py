"""Residual denoisers for all noises: each alone, scaled as published, learning what there is."""

import math

import pytest
import torch

from ebflow.complexity import denoising_errors, load
from ebflow.complexity.denoisers import Draws, fit
from ebflow.complexity.residual import ResidualDenoisers
from ebflow.randomness import generator


def stirred(count, size=5, **options):
    """An ensemble whose last layers, too, are not 0."""
    net = ResidualDenoisers(count, size, width=8, generator=generator(0), **options).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(1))
    return net


def test_an_untrained_network_is_the_best_linear_one():
    """F is 0: D is the mean of x₀ given x of N(0, σ_d² I)."""
    net = ResidualDenoisers(2, 3, deviation=0.7, generator=generator(0))
    x = torch.randn(4, 3, generator=generator(1))
    torch.testing.assert_close(net.denoise(x, 1.1)[1], x * 0.49 / (0.49 + 1.21))


def test_a_network_is_what_it_would_be_alone():
    net, x = stirred(3), torch.randn(4, 5, generator=generator(2), dtype=torch.float64)
    sigma = torch.tensor([0.1, 1.0, 3.0, 9.0], dtype=torch.float64)[None, :, None]
    whole = net(x.expand(3, -1, -1), sigma)
    for index in range(4):
        alone = net.denoise(x[index : index + 1], float(sigma[0, index, 0]))
        torch.testing.assert_close(whole[:, index : index + 1], alone)
    assert (whole[0] - whole[1]).abs().min() > 1e-4
    whole[1].square().sum().backward()
    for parameter in net.parameters():
        assert not parameter.grad[[0, 2]].any() and parameter.grad[1].any()


@pytest.mark.parametrize("sigma", (0.05, 1.0, 20.0))
def test_the_weight_makes_the_loss_that_of_unit_targets(sigma):
    """λ c_out² = 1."""
    net = stirred(1, deviation=0.5)
    c_out = sigma * 0.5 / math.hypot(sigma, 0.5)
    assert net.weight(sigma) * c_out**2 == pytest.approx(1)


def test_training_comes_near_the_scores_of_a_law_of_images(single_precision):
    """In mean square, of the error of the best linear denoiser a third is gone, at two noises."""
    truth = load("digits")
    clean = truth.sample(4096, generator=generator(3)).float()[None]
    net = ResidualDenoisers(1, 64, width=64, generator=generator(4))
    before = [errors(net, truth, sigma) for sigma in (0.3, 1.5)]
    draws = Draws(clean, torch.tensor([0]), torch.tensor([4096]), generator(5))
    fit(net, draws, least=0.2, highest=20.0, steps=1600, rows=64, lr=2e-3)
    after = [errors(net, truth, sigma) for sigma in (0.3, 1.5)]
    assert all(a < 0.67 * b for a, b in zip(after, before, strict=True))


def errors(net, truth, sigma):
    found = denoising_errors(
        lambda x, sigma: net.denoise(x.float(), sigma), truth, sigma, points=20,
        generator=generator(6),
    )  # fmt: skip
    return float(found["sigma_l2"])
