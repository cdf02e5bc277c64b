"""The precision of matrix products and convolutions.

Reduced precision (TF32, bfloat16) is a relative error of about 1e-3. It does little harm to a
score, and destroys a difference of energies, forward and backward alike: at a step of 0.03 that
difference is multiplied by 2,000.
"""

__all__ = ["full_products", "products"]

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def products(precision: str, device: str = "cpu") -> Iterator[None]:
    """Sets the precision of float32 products and convolutions for a while.

    Arguments:
        precision: As in ``torch.set_float32_matmul_precision``, where ``highest`` is float32
            itself and all results are float32; or ``bfloat16``, by autocast: results of products
            too are bfloat16, and weights and gradients stay float32.
        device: The type of device, for autocast.
    """
    if precision == "bfloat16":
        with torch.autocast(device, torch.bfloat16):
            yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def full_products(x: Tensor) -> None:
    """Raises ValueError unless products of tensors like ``x`` have the full float32 precision.

    It is looked at in the forward pass; the backward pass needs the same.
    """
    found = "highest"
    if x.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(x.device.type):
        found = "half precision"
    elif x.dtype == torch.float32:
        found = torch.get_float32_matmul_precision()
        if x.is_cuda and torch.backends.cudnn.allow_tf32:
            found = "TF32 convolutions"
    if found != "highest":
        raise ValueError(
            f"precision: found {found}, expected highest: differences of energies have no digits "
            'otherwise (torch.set_float32_matmul_precision("highest"), '
            "torch.backends.cudnn.allow_tf32 = False, no autocast)"
        )
