"""How a step runs: in what precision, and on several workers.

Weights are copied on each worker (DDP) or split among them (FSDP2).

Split weights W (``fully_shard``) are gathered for a step and freed after it. Of a worker's memory,
the optimiser's moments, the averaged weights and the gradients at rest then shrink as 1/workers;
during a step the weights and their gradient are whole. The mathematics sees whole weights only.

References:
    PyTorch FSDP: experiences on scaling fully sharded data parallel (Zhao et al., 2023),
    arXiv:2304.11277.
"""

__all__ = [
    "gather",
    "gathered",
    "is_split",
    "products",
    "split",
    "spread",
    "unsynchronised",
    "whole",
]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def split(module: nn.Module) -> nn.Module:
    """Splits a module's parameters among all workers, in place; returns it."""
    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    return fully_shard(module, mesh=mesh)


def is_split(module: nn.Module) -> bool:
    """Whether a module's parameters are split."""
    return isinstance(module, FSDPModule)


def gather(module: nn.Module) -> None:
    """Makes the weights of a split module whole until its next backward pass; on all workers."""
    if is_split(module):
        module.unshard()


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Makes the weights of a split module whole for a while; on all workers."""
    gather(module)
    try:
        yield
    finally:
        if is_split(module):
            module.reshard()


@contextmanager
def unsynchronised(module: nn.Module) -> Iterator[None]:
    """Keeps gradients where they arise, for all but the last part of a batch."""
    if is_split(module):
        module.set_requires_gradient_sync(False)
        yield
        module.set_requires_gradient_sync(True)
    elif isinstance(module, nn.parallel.DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        yield


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors with those that are split made whole; on all workers."""
    return {k: t.full_tensor() if isinstance(t, DTensor) else t for k, t in tensors.items()}


def spread(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns this worker's parts of whole tensors, split as those of ``like`` are, by name."""
    return {name: _part(tensor, like.get(name)) for name, tensor in tensors.items()}


def _part(tensor: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor) or like.shape != tensor.shape:
        return tensor
    place = like.device_mesh, like.placements
    return distribute_tensor(tensor.to(like.device), *place, src_data_rank=None)


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
