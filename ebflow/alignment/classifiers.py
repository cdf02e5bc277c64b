r"""Classifiers with smooth activations: rows (B, D) to logits (B, C).

Score matching needs a Hessian that is not zero almost everywhere, so every activation is
``softplus`` with β = 10, there is no max-pooling, and no layer couples the examples of a batch:
with batch statistics :math:`\nabla_x f` has terms across examples and the Laplacian is that over
all of them. ``resnet18`` normalizes groups of channels, or by running statistics that are frozen
while a regularizer looks (``frozen_statistics``).

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128; Deep Residual Learning for Image Recognition (He,
Zhang, Ren, Sun, 2016), arXiv:1512.03385; Group Normalization (Wu, He, 2018), arXiv:1803.08494.
"""

__all__ = ["CLASSIFIERS", "NORMALIZATIONS", "cnn", "coupled", "frozen_statistics", "mlp",
           "resnet18"]  # fmt: skip

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..networks import SHARPNESS, perceptron, started

GROUPS = 32

NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "group": lambda channels: nn.GroupNorm(GROUPS, channels),
    "frozen": nn.BatchNorm2d,
}
"""Normalizations of ``resnet18`` by name; ``frozen`` is batch normalization."""


def mlp(
    shape: Sequence[int],
    classes: int,
    *,
    hidden: int = 256,
    depth: int = 2,
    generator: torch.Generator,
) -> nn.Module:
    """Returns a multilayer perceptron.

    Arguments:
        shape: The shape of an example.
        classes: The number of classes C.
        hidden: The width of the hidden layers.
        depth: Their number.
        generator: The source of the weights.
    """
    return perceptron(
        math.prod(shape),
        classes,
        hidden=hidden,
        depth=depth,
        activation="softplus",
        generator=generator,
    )


def cnn(
    shape: Sequence[int], classes: int, *, hidden: int = 32, generator: torch.Generator
) -> nn.Module:
    """Returns two 3×3 convolutions with average pooling behind each, and two dense layers.

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
    shape: Sequence[int],
    classes: int,
    *,
    hidden: int = 64,
    normalization: str = "group",
    generator: torch.Generator,
) -> nn.Module:
    """Returns ResNet-18 in the form for CIFAR: a 3×3 stem of stride 1, and no max-pooling.

    Four stages of two blocks have 1, 2, 4 and 8 times the stem's channels. Convolutions start
    from He's normal distribution.

    Arguments:
        shape: The shape of an image.
        classes: The number of classes.
        hidden: Channels of the stem, a multiple of 32.
        normalization: A name in ``NORMALIZATIONS``.
        generator: The source of the weights.
    """
    image = _image(shape)
    norm = NORMALIZATIONS[normalization]
    layers = [nn.Unflatten(1, image), _conv(image[0], hidden, 3, 1, generator), norm(hidden),
              nn.Softplus(SHARPNESS)]  # fmt: skip
    before = hidden
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and not block else 1
            layers.append(_Block(before, hidden << stage, stride, norm, generator))
            before = hidden << stage
    last = started(skip_init(nn.Linear, before, classes), generator)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


class _Block(nn.Module):
    """y = φ(x' + N(conv(φ(N(conv(x)))))), x' being x or its 1×1 convolution of that stride."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        norm: Callable[[int], nn.Module],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(inputs, outputs, 3, stride, generator),
            norm(outputs),
            nn.Softplus(SHARPNESS),
            _conv(outputs, outputs, 3, 1, generator),
            norm(outputs),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                _conv(inputs, outputs, 1, stride, generator), norm(outputs)
            )
        self.activation = nn.Softplus(SHARPNESS)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.body(x))


def _conv(
    inputs: int, outputs: int, side: int, stride: int, generator: torch.Generator
) -> nn.Conv2d:
    layer = skip_init(
        nn.Conv2d, inputs, outputs, side, stride=stride, padding=side // 2, bias=False
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", generator=generator)
    return layer


def _image(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) not in (2, 3):
        raise ValueError(f"shape: found {tuple(shape)}, expected (H, W) or (C, H, W)")
    return tuple((1, *shape)[-3:])


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {f.__name__: f for f in (mlp, cnn, resnet18)}
"""Classifiers by name, as functions of an example's shape and the number of classes."""


def coupled(network: nn.Module) -> bool:
    """Returns whether a training-mode network lets the examples of a batch see each other."""
    return any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Lets batch normalization use its running statistics, and leave them as they are."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
