"""U-Nets as denoisers of images."""

import pytest
import torch

from ebflow.complexity.denoisers import PreconditionedDenoisers
from ebflow.complexity.unet import UNet
from ebflow.randomness import generator

from ..conftest import double_precision  # noqa: F401


def stirred(count, size=16, width=2):
    """Returns an ensemble in which no layer is 0."""
    source = generator(0)
    net = PreconditionedDenoisers([UNet(size, width, source) for _ in range(count)]).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(1))
    return net


def test_an_untrained_u_net_is_the_best_linear_denoiser():
    source, x = generator(0), torch.randn(3, 16, generator=generator(1))
    net = PreconditionedDenoisers([UNet(16, 2, source)]).double()
    torch.testing.assert_close(net.denoise(x, 1.1)[0], x / (1 + 1.21))


def test_networks_and_points_are_independent():
    net, x = stirred(2), torch.randn(3, 16, generator=generator(2))
    sigma = torch.tensor([0.1, 1.0, 9.0])[None, :, None]
    whole = net(x.expand(2, -1, -1), sigma)
    for index in range(3):
        alone = net.denoise(x[index : index + 1], float(sigma[0, index, 0]))
        torch.testing.assert_close(whole[:, index : index + 1], alone)
    whole[1].square().sum().backward()
    for parameter in net.parameters():
        assert not parameter.grad[0].any() and parameter.grad[1].any()


def test_every_pixel_depends_on_others_at_both_resolutions():
    """On 8 × 8 pixels: the gradient of one is not 0 at most of the image."""
    net = stirred(1, size=64)
    x = torch.randn(1, 1, 64, generator=generator(3)).requires_grad_()
    (slope,) = torch.autograd.grad(net(x, 0.5)[0, 0, 27], x)
    assert (slope != 0).double().mean() > 0.9


@pytest.mark.parametrize("size", [15, 25])
def test_images_are_square_with_an_even_side(size):
    with pytest.raises(ValueError, match=f"size: found {size}, expected the square of an even"):
        UNet(size, 2, generator(0))
