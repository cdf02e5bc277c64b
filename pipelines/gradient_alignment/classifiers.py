r"""Classifiers with smooth activations, from rows (B, D) to logits (B, C), and their files.

Score matching needs a Hessian that is not zero almost everywhere. So every activation is
``softplus`` with β = 10, and there is no max-pooling. No layer mixes the examples of a batch,
because then :math:`\nabla_x f` would have terms across examples.

Source: Srinivas, Fleuret (2021), arXiv:2006.09128.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import skip_init

from ebflow.files import save_tensors
from ebflow.networks import SHARPNESS, perceptron, started
from ebflow.randomness import generator as derive
from pipelines.gradient_alignment.config import NetworkConfig

WEIGHTS, ARCHITECTURE, OUTCOME = "model.safetensors", "network.json", "outcome.json"
"""Files of a trained classifier."""

DIVERGED = "diverged"
"""The first word of the diagnosis of a training that became non-finite."""


def mlp(
    shape: Sequence[int], classes: int, *, hidden: int, generator: torch.Generator
) -> nn.Module:
    """Returns a multilayer perceptron of two hidden layers."""
    return perceptron(
        math.prod(shape), classes, hidden=hidden, depth=2, activation="softplus",
        generator=generator,
    )  # fmt: skip


def cnn(
    shape: Sequence[int], classes: int, *, hidden: int, generator: torch.Generator
) -> nn.Module:
    """Returns two 3×3 convolutions, each followed by average pooling, and two dense layers.

    The first convolution has ``hidden`` channels, the second twice as many.
    """
    channels, height, width = image = tuple((1, *shape)[-3:])
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


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {f.__name__: f for f in (mlp, cnn)}
"""Classifiers by name, as functions of an example's shape and the number of classes."""


def network(config: NetworkConfig, shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """Returns the untrained classifier."""
    generator = derive(seed, "classifier")
    return CLASSIFIERS[config.name](shape, classes, hidden=config.hidden, generator=generator)


def save(folder: Path, config: NetworkConfig, trained: nn.Module) -> None:
    """Writes the weights and the architecture."""
    tensors = {name: tensor.detach().cpu() for name, tensor in trained.state_dict().items()}
    save_tensors(tensors, folder / WEIGHTS)
    (folder / ARCHITECTURE).write_text(config.model_dump_json())


def load(folder: Path, shape: Sequence[int], classes: int) -> nn.Module:
    """Returns a saved classifier in evaluation mode, without gradients of its parameters."""
    config = NetworkConfig.model_validate_json((folder / ARCHITECTURE).read_text())
    loaded = network(config, shape, classes, 0)
    loaded.load_state_dict(load_file(folder / WEIGHTS))
    return loaded.eval().requires_grad_(False)
