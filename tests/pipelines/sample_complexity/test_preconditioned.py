"""Denoisers for all noise levels: independence, scales, and the scores they learn."""

import math

import pytest
import torch

from ebflow.complexity.errors import denoising_errors
from ebflow.complexity.truths import load
from ebflow.randomness import generator
from pipelines.sample_complexity.ensembles import PreconditionedDenoisers, ResidualNetwork, UNet
from tests.library.conftest import double_precision, single_precision  # noqa: F401

from .test_ensembles import fit, training_sets


def residual_denoisers(count, size, *, width=16, generator):
    networks = [ResidualNetwork(size, width, 3, generator) for _ in range(count)]
    return PreconditionedDenoisers(networks)


def unet_denoisers(count, size, *, width=16, generator):
    return PreconditionedDenoisers([UNet(size, width, generator) for _ in range(count)])


KINDS = pytest.mark.parametrize("kind", (residual_denoisers, unet_denoisers))


def stirred(kind, count, size=16):
    """Returns an ensemble in which no layer is 0."""
    net = kind(count, size, width=8, generator=generator(0)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(1))
    return net


@KINDS
def test_an_untrained_network_is_the_best_linear_one(kind):
    """F is 0: D is the mean of x₀ given x of N(0, I)."""
    net = kind(2, 4, generator=generator(0))
    x = torch.randn(4, 4, generator=generator(1))
    torch.testing.assert_close(net.denoise(x, 1.1)[1], x / (1 + 1.21))


@KINDS
def test_networks_are_independent(kind):
    net, x = stirred(kind, 3), torch.randn(4, 16, generator=generator(2), dtype=torch.float64)
    sigma = torch.tensor([0.1, 1.0, 3.0, 9.0], dtype=torch.float64)[None, :, None]
    whole = net(x.expand(3, -1, -1), sigma)
    for index in range(4):
        alone = net.denoise(x[index : index + 1], float(sigma[0, index, 0]))
        torch.testing.assert_close(whole[:, index : index + 1], alone)
    assert (whole[0] - whole[1]).abs().mean() > 1e-2
    whole[1].square().sum().backward()
    for parameter in net.parameters():
        assert not parameter.grad[[0, 2]].any() and parameter.grad[1].any()


@pytest.mark.parametrize("sigma", (0.05, 1.0, 20.0))
def test_the_weight_makes_the_loss_that_of_unit_targets(sigma):
    """λ c_out² = 1."""
    net = stirred(residual_denoisers, 1)
    c_out = sigma / math.hypot(sigma, 1)
    assert net.weight(sigma) * c_out**2 == pytest.approx(1)


def test_a_u_net_uses_the_whole_image():
    """The far corner of the output depends on the near one of the input."""
    net = stirred(unet_denoisers, 1, 64)
    x = torch.randn(1, 1, 64, generator=generator(2), dtype=torch.float64, requires_grad=True)
    net(x, 1.0)[0, 0, -1].backward()
    assert x.grad[0, 0, 0] != 0


@pytest.mark.parametrize(
    ("kind", "width", "steps", "rate"),
    ((residual_denoisers, 64, 800, 4e-3), (unet_denoisers, 8, 200, 8e-3)),
)
def test_training_approaches_the_scores_of_images(
    kind,
    width,
    steps,
    rate,
    single_precision,  # noqa: F811
):
    """The L2 error falls by a third from that of the best linear denoiser, at two levels."""
    truth = load("digits")
    clean = truth.sample(4096, generator=generator(3)).float()[None]
    net = kind(1, 64, width=width, generator=generator(4))
    before = [errors(net, truth, sigma) for sigma in (0.3, 1.5)]
    sets, source = training_sets(clean, [0], [4096]), generator(5)
    fit(net, sets, generator=source, least=0.2, highest=20.0, steps=steps, rows=64, lr=rate)
    after = [errors(net, truth, sigma) for sigma in (0.3, 1.5)]
    assert all(a < 0.67 * b for a, b in zip(after, before, strict=True))


def errors(net, truth, sigma):
    found = denoising_errors(
        lambda x, sigma: net.denoise(x.float(), sigma), truth, sigma, points=20,
        generator=generator(6),
    )  # fmt: skip
    return float(found["sigma_l2"])
