r"""Classifiers with smooth activations: rows (B, D) to logits (B, C).

Score matching needs a Hessian that is not zero almost everywhere, so every activation is
``softplus`` with β = 10 and there is no max-pooling. No layer mixes the examples of a batch: with
batch statistics, :math:`\nabla_x f` would have terms across examples. So ``resnet18`` normalizes
groups of channels.

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128; Deep Residual Learning for Image Recognition (He,
Zhang, Ren, Sun, 2016), arXiv:1512.03385; Group Normalization (Wu, He, 2018), arXiv:1803.08494.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ebflow.networks import SHARPNESS, perceptron, started

GROUPS = 32


def mlp(
    shape: Sequence[int], classes: int, *, hidden: int = 256, generator: torch.Generator
) -> nn.Module:
    """Returns a multilayer perceptron of two hidden layers.

    Arguments:
        shape: The shape of an example.
        classes: The number of classes C.
        hidden: The width of the hidden layers.
        generator: The source of the weights.
    """
    return perceptron(
        math.prod(shape), classes, hidden=hidden, depth=2, activation="softplus",
        generator=generator,
    )  # fmt: skip


def cnn(
    shape: Sequence[int], classes: int, *, hidden: int = 32, generator: torch.Generator
) -> nn.Module:
    """Returns two 3×3 convolutions, each followed by average pooling, and two dense layers.

    Arguments:
        shape: The shape of an image, (H, W) or (C, H, W); height and width multiples of 4.
        classes: The number of classes.
        hidden: Channels of the first convolution; the second has twice as many.
        generator: The source of the weights.
    """
    channels, height, width = _image(shape)
    if height % 4 or width % 4:
        raise ValueError(f"shape: found {tuple(shape)}, expected multiples of 4 pixels")
    inner = 2 * hidden * (height // 4) * (width // 4)
    return nn.Sequential(
        nn.Unflatten(1, (channels, height, width)),
        started(skip_init(nn.Conv2d, channels, hidden, 3, padding=1), generator),
        nn.Softplus(SHARPNESS),
        nn.AvgPool2d(2),
        started(skip_init(nn.Conv2d, hidden, 2 * hidden, 3, padding=1), generator),
        nn.Softplus(SHARPNESS),
        nn.AvgPool2d(2),
        nn.Flatten(),
        *perceptron(inner, classes, hidden=4 * hidden, depth=1, activation="softplus",
                    generator=generator),
    )  # fmt: skip


def resnet18(
    shape: Sequence[int], classes: int, *, hidden: int = 64, generator: torch.Generator
) -> nn.Module:
    """Returns ResNet-18 in the form for CIFAR: a 3×3 stem of stride 1, and no max-pooling.

    Four stages of two blocks have 1, 2, 4 and 8 times the stem's channels. Convolutions start
    from He's normal distribution.

    Arguments:
        shape: The shape of an image.
        classes: The number of classes.
        hidden: Channels of the stem, a multiple of 32.
        generator: The source of the weights.
    """
    image, before = _image(shape), hidden
    layers = [nn.Unflatten(1, image), *_conv(image[0], hidden, 3, 1, generator),
              nn.Softplus(SHARPNESS)]  # fmt: skip
    for stage in range(4):
        for stride in (2 if stage else 1, 1):
            layers.append(_Block(before, hidden << stage, stride, generator))
            before = hidden << stage
    last = started(skip_init(nn.Linear, before, classes), generator)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


class _Block(nn.Module):
    """y = φ(x' + N(conv(φ(N(conv(x)))))), x' being x or its 1×1 convolution of that stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, generator: torch.Generator) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(inputs, outputs, 3, stride, generator),
            nn.Softplus(SHARPNESS),
            *_conv(outputs, outputs, 3, 1, generator),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*_conv(inputs, outputs, 1, stride, generator))
        self.activation = nn.Softplus(SHARPNESS)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.body(x))


def _conv(
    inputs: int, outputs: int, side: int, stride: int, generator: torch.Generator
) -> tuple[nn.Module, nn.Module]:
    """Returns a convolution without offsets, and its normalization."""
    layer = skip_init(
        nn.Conv2d, inputs, outputs, side, stride=stride, padding=side // 2, bias=False
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", generator=generator)
    return layer, nn.GroupNorm(GROUPS, outputs)


def _image(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) not in (2, 3):
        raise ValueError(f"shape: found {tuple(shape)}, expected (H, W) or (C, H, W)")
    return tuple((1, *shape)[-3:])


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {f.__name__: f for f in (mlp, cnn, resnet18)}
"""Classifiers by name, as functions of an example's shape and the number of classes."""
