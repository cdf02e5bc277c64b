r"""Classifiers with smooth activations, from rows (B, D) to logits (B, C), and their files.

Score matching needs a Hessian that is not zero almost everywhere. So every activation is
``softplus`` with β = 10, and there is no max-pooling. No layer mixes the examples of a batch,
because then :math:`\nabla_x f` would have terms across examples; so ``resnet18`` normalizes groups
of channels.

Sources: Srinivas, Fleuret (2021), arXiv:2006.09128; He, Zhang, Ren, Sun (2016), arXiv:1512.03385
(ResNet); Wu, He (2018), arXiv:1803.08494 (group normalization).
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ebflow.errors import BadInput
from ebflow.files import save_tensors
from ebflow.networks import SHARPNESS, perceptron, started
from ebflow.randomness import generator as derive
from pipelines.gradient_alignment.config import NetworkConfig

GROUPS = 32

WEIGHTS, ARCHITECTURE, OUTCOME = "model.safetensors", "network.json", "outcome.json"
"""Files of a trained classifier."""

DIVERGED = "diverged"
"""The first word of the diagnosis of a training that became non-finite."""


def mlp(
    shape: Sequence[int], classes: int, *, hidden: int = 256, generator: torch.Generator
) -> nn.Module:
    """Returns a multilayer perceptron of two hidden layers."""
    return perceptron(
        math.prod(shape), classes, hidden=hidden, depth=2, activation="softplus",
        generator=generator,
    )  # fmt: skip


def cnn(
    shape: Sequence[int], classes: int, *, hidden: int = 32, generator: torch.Generator
) -> nn.Module:
    """Returns two 3×3 convolutions, each followed by average pooling, and two dense layers.

    The first convolution has ``hidden`` channels, the second twice as many.
    """
    channels, height, width = image = _image(shape)
    inner = 2 * hidden * (height // 4) * (width // 4)
    return nn.Sequential(
        nn.Unflatten(1, image),
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

    Four stages of two blocks have 1, 2, 4 and 8 times the ``hidden`` channels of the stem, a
    multiple of 32. Convolutions start from He's normal distribution.
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
    """y = φ(x' + N(conv(φ(N(conv(x)))))), where x' is x or a 1×1 convolution of that stride."""

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
    return tuple((1, *shape)[-3:])


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {f.__name__: f for f in (mlp, cnn, resnet18)}
"""Classifiers by name, as functions of an example's shape and the number of classes."""


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Raises BadInput unless a classifier can read examples of a shape."""
    expected = None
    if name != "mlp" and len(shape) not in (2, 3):
        expected = "images of shape (H, W) or (C, H, W)"
    elif name == "cnn" and any(side % 4 for side in shape[-2:]):
        expected = "heights and widths that are multiples of 4"
    if expected:
        found = f"a {name} for examples of shape {tuple(shape)}"
        raise BadInput(option="--scale", found=found, expected=expected)


def network(config: NetworkConfig, shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """Returns the untrained classifier."""
    options = {} if config.hidden is None else {"hidden": config.hidden}
    generator = derive(seed, "classifier")
    return CLASSIFIERS[config.name](shape, classes, **options, generator=generator)


def save(folder: Path, config: NetworkConfig, trained: nn.Module) -> None:
    """Writes the weights and the architecture."""
    tensors = {name: tensor.detach().cpu() for name, tensor in trained.state_dict().items()}
    save_tensors(tensors, folder / WEIGHTS)
    (folder / ARCHITECTURE).write_text(config.model_dump_json())


def load(
    folder: Path, shape: Sequence[int], classes: int, *, random: int | None = None
) -> nn.Module:
    """Returns a saved classifier in evaluation mode, without gradients of its parameters.

    Arguments:
        folder: The folder of the classifier.
        shape: The shape of an example.
        classes: The number of classes.
        random: The seed of random parameters in place of the trained ones.
    """
    config = NetworkConfig.model_validate_json((folder / ARCHITECTURE).read_text())
    loaded = network(config, shape, classes, 0 if random is None else random)
    if random is None:
        loaded.load_state_dict(load_file(folder / WEIGHTS))
    return loaded.eval().requires_grad_(False)
