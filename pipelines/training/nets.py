"""From a model's configuration and the shape of the data to a flow.

The command line reads this module first, so PyTorch is imported only to build a flow.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ebflow.errors import BadInput
from ebflow.recipes import IMAGES, completed
from pipelines.config import Model

if TYPE_CHECKING:
    import torch

    from ebflow.bases import Base
    from ebflow.flow import Flow


def options(model: Model) -> dict[str, Any]:
    """Returns the options that the architecture is called with."""
    options = model.model_dump(exclude={"architecture", "base"}, exclude_none=True)
    return completed(model.architecture, options)


def fits(model: Model) -> bool:
    """True if the architecture has flows of every shape; for others :func:`net` may raise."""
    return model.architecture in ("dense", "autoregressive")


def net(
    model: Model,
    shape: Sequence[int],
    *,
    base: "Base | None" = None,
    context: int = 0,
    generator: "torch.Generator",
    dtype: "torch.dtype",
) -> "Flow":
    """Returns the flow for examples of a shape, with untrained weights.

    Arguments:
        model: The configuration.
        shape: The shape of an example.
        base: The density of the latents; None: N(0, I).
        context: The number of elements of a context; 0: there is none.
        generator: The source of the weights.
        dtype: Their type.

    Raises:
        BadInput: If the architecture is not for such a shape.
    """
    from pipelines.training.rivals import ARCHITECTURES

    settings = {"base": base, "context": context, "generator": generator, "dtype": dtype}
    try:
        event = _event(model.architecture, shape)
        return ARCHITECTURES[model.architecture](event, **options(model), **settings)
    except ValueError as error:
        found = f"{model.architecture} for examples of shape {tuple(shape)}"
        raise BadInput(option="--model.architecture", found=found, hint=str(error)) from None


def _event(architecture: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns (D,) for architectures of rows, and (C, H, W) for those of images."""
    if architecture not in IMAGES:
        return (math.prod(shape),)
    if len(shape) not in (2, 3):
        raise ValueError("expected images of shape (H, W) or (C, H, W)")
    return (1, *shape)[-3:]
