r"""Classifiers with smooth activations, from rows (B, D) to logits (B, C).

Score matching needs a Hessian that is not zero almost everywhere. So every activation is
``softplus`` with β = 10, and there is no max-pooling. No layer mixes the examples of a batch,
because then :math:`\nabla_x f` would have terms across examples. So residual networks normalize
groups of channels, and not batches as in the paper.

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128, for the activation and the residual networks; Deep
Residual Learning for Image Recognition (He, Zhang, Ren, Sun, 2016), arXiv:1512.03385; Group
Normalization (Wu, He, 2018), arXiv:1803.08494.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..networks import SHARPNESS, perceptron, started

GROUP = 8  # Channels that are normalized together

STAGES = 4  # Stages of a residual network; each has twice the channels of the one before


def mlp(
    shape: Sequence[int], classes: int, *, hidden: int = 256, generator: torch.Generator
) -> nn.Module:
    """Returns a perceptron of two hidden layers of a width ``hidden``, for rows of any shape."""
    width = math.prod(shape)
    return perceptron(
        width, classes, hidden=hidden, depth=2, activation="softplus", generator=generator
    )


def cnn(
    shape: Sequence[int], classes: int, *, hidden: int = 32, generator: torch.Generator
) -> nn.Module:
    """Returns two 3×3 convolutions, each followed by average pooling, and two dense layers.

    The convolutions have ``hidden`` and twice as many channels.

    Raises:
        ValueError: If examples are no images, or a side is no multiple of 4.
    """
    channels, height, width = image = _image(shape)
    if height % 4 or width % 4:
        raise ValueError(f"shape: found {tuple(shape)}, expected sides that are multiples of 4")
    layers: list[nn.Module] = [nn.Unflatten(1, image)]
    for before, after in ((channels, hidden), (hidden, 2 * hidden)):
        convolution = skip_init(nn.Conv2d, before, after, 3, padding=1)
        layers += [started(convolution, generator), nn.Softplus(SHARPNESS), nn.AvgPool2d(2)]
    inner = 2 * hidden * (height // 4) * (width // 4)
    dense = perceptron(
        inner, classes, hidden=4 * hidden, depth=1, activation="softplus", generator=generator
    )
    return nn.Sequential(*layers, nn.Flatten(), *dense)


def resnet9(
    shape: Sequence[int], classes: int, *, hidden: int = 64, generator: torch.Generator
) -> nn.Module:
    """Returns a residual network of four stages of one block. Errors as of ``resnet18``."""
    return _resnet(shape, classes, hidden, blocks=1, generator=generator)


def resnet18(
    shape: Sequence[int], classes: int, *, hidden: int = 64, generator: torch.Generator
) -> nn.Module:
    """Returns ResNet-18 in its form for small images: a 3×3 stem of stride 1, no max-pooling.

    Its four stages of two blocks have 1, 2, 4 and 8 times ``hidden`` channels. Convolutions start
    from He's normal distribution.

    Raises:
        ValueError: If examples are no images, or ``hidden`` is no multiple of 8.
    """
    return _resnet(shape, classes, hidden, blocks=2, generator=generator)


def _resnet(
    shape: Sequence[int], classes: int, hidden: int, *, blocks: int, generator: torch.Generator
) -> nn.Module:
    image = _image(shape)
    if hidden % GROUP:
        raise ValueError(f"hidden: found {hidden}, expected a multiple of {GROUP}")
    stem = [_convolution(image[0], hidden, 3, 1, generator), _norm(hidden)]
    layers: list[nn.Module] = [nn.Unflatten(1, image), *stem, nn.Softplus(SHARPNESS)]
    before = hidden
    for stage in range(STAGES):
        after = hidden * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(Block(before, after, stride, generator))
            before = after
    last = started(skip_init(nn.Linear, before, classes), generator)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


class Block(nn.Module):
    """A residual block: φ(x' + N(conv(φ(N(conv(x)))))).

    x' is x, or its 1×1 convolution if the number of channels or the size of the image changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, generator: torch.Generator) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(inputs, outputs, 3, stride, generator),
            _norm(outputs),
            nn.Softplus(SHARPNESS),
            _convolution(outputs, outputs, 3, 1, generator),
            _norm(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            projection = _convolution(inputs, outputs, 1, stride, generator)
            self.shortcut = nn.Sequential(projection, _norm(outputs))
        self.activation = nn.Softplus(SHARPNESS)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.body(x))


def _convolution(
    inputs: int, outputs: int, side: int, stride: int, generator: torch.Generator
) -> nn.Conv2d:
    layer = skip_init(
        nn.Conv2d, inputs, outputs, side, stride=stride, padding=side // 2, bias=False
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", generator=generator)
    return layer


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // GROUP, channels)


def _image(shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns the colours, height and width of an image."""
    if len(shape) not in (2, 3):
        raise ValueError(f"shape: found {tuple(shape)}, expected (H, W) or (C, H, W)")
    channels, height, width = (1, *shape)[-3:]
    return channels, height, width


#: Classifiers by name, as functions of an example's shape and the number of classes
CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet9": resnet9,
    "resnet18": resnet18,
}
