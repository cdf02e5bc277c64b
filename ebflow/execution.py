"""How a step runs: in what precision, and on several workers.

Weights are copied on each worker (DDP) or sharded among them (FSDP2).

Sharded weights (``fully_shard``) are gathered for a step and freed after it. Of a worker's memory,
the optimiser's moments, the averaged weights and the gradients at rest then shrink as 1/workers;
during a step the weights and their gradient are full. The mathematics sees full weights only.
What shards them is imported where there are several workers: it takes as long as to import torch.

References:
    PyTorch FSDP: experiences on scaling fully sharded data parallel (Zhao et al., 2023),
    arXiv:2304.11277.
"""

__all__ = ["distributed", "full", "is_sharded", "products", "shard_weights", "unsharded",
           "unsynchronised"]  # fmt: skip

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed
from torch import Tensor, nn


def shard_weights(module: nn.Module) -> nn.Module:
    """Shards a module's parameters among all workers, in place; returns it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    return fully_shard(module, mesh=mesh)


def is_sharded(module: nn.Module) -> bool:
    """Whether a module's parameters are sharded."""
    if not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Gathers the weights of a sharded module for a while; on all workers."""
    if not is_sharded(module):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


@contextmanager
def unsynchronised(module: nn.Module) -> Iterator[None]:
    """Keeps gradients where they arise, for all but the last part of a batch."""
    if is_sharded(module):
        module.set_requires_gradient_sync(False)
        yield
        module.set_requires_gradient_sync(True)
    elif isinstance(module, nn.parallel.DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        yield


def full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors with those that are sharded gathered; on all workers."""
    return {k: t.full_tensor() if _is_part(t) else t for k, t in tensors.items()}


def distributed(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns this worker's parts of full tensors, sharded as those of ``like`` are, by name."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        wanted = like.get(name)
        if _is_part(wanted) and wanted.shape == tensor.shape:
            from torch.distributed.tensor import distribute_tensor

            place = wanted.device_mesh, wanted.placements
            found[name] = distribute_tensor(tensor.to(wanted.device), *place, src_data_rank=None)
    return found


def _is_part(tensor: Tensor | None) -> bool:
    """Whether a tensor is sharded, of which this worker has a part."""
    if not torch.distributed.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


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
