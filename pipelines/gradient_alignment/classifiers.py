r"""Classifiers with smooth activations, from rows (B, D) to logits (B, C), and their files.

Score matching needs a Hessian that is not zero almost everywhere. So every activation is
``softplus`` with β = 10, and there is no max-pooling. No layer mixes the examples of a batch,
because then :math:`\nabla_x f` would have terms across examples.

Source: Srinivas, Fleuret (2021), arXiv:2006.09128.
"""

import math
from collections.abc import Sequence
from pathlib import Path

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


def network(config: NetworkConfig, shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """Returns an untrained classifier.

    ``mlp`` has two hidden layers. ``cnn`` has two 3×3 convolutions, of ``hidden`` and twice as
    many channels, each followed by average pooling, and two dense layers.
    """
    generator, hidden = derive(seed, "classifier"), config.hidden
    options = {"activation": "softplus", "generator": generator}
    if config.name == "mlp":
        return perceptron(math.prod(shape), classes, hidden=hidden, depth=2, **options)
    channels, height, width = image = tuple((1, *shape)[-3:])
    layers = [nn.Unflatten(1, image)]
    for before, after in ((channels, hidden), (hidden, 2 * hidden)):
        convolution = skip_init(nn.Conv2d, before, after, 3, padding=1)
        layers += [started(convolution, generator), nn.Softplus(SHARPNESS), nn.AvgPool2d(2)]
    inner = 2 * hidden * (height // 4) * (width // 4)
    dense = perceptron(inner, classes, hidden=4 * hidden, depth=1, **options)
    return nn.Sequential(*layers, nn.Flatten(), *dense)


def save(folder: Path, config: NetworkConfig, trained: nn.Module) -> None:
    """Writes the weights and the architecture."""
    save_tensors(trained.state_dict(), folder / WEIGHTS)
    (folder / ARCHITECTURE).write_text(config.model_dump_json())


def load(folder: Path, shape: Sequence[int], classes: int) -> nn.Module:
    """Returns a saved classifier in evaluation mode, without gradients of its parameters."""
    config = NetworkConfig.model_validate_json((folder / ARCHITECTURE).read_text())
    loaded = network(config, shape, classes, 0)
    loaded.load_state_dict(load_file(folder / WEIGHTS))
    return loaded.eval().requires_grad_(False)
