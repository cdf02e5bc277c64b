"""Weights that several workers share.

Workers have copies of the weights (DDP), or each has a shard of them (FSDP2). Sharded weights
(``fully_shard``) are gathered for a step and freed after it. Of a worker's memory, the moments of
the optimizer, the averaged weights and the gradients at rest then shrink as 1/workers; during a
step the weights and their gradient are complete. The mathematics sees complete weights only.
PyTorch's sharding is imported when there are several workers: the import takes as long as torch's.

References:
    PyTorch FSDP: experiences on scaling fully sharded data parallel (Zhao et al., 2023),
    arXiv:2304.11277.
"""

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
    """Returns whether a module's parameters are sharded."""
    if not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Gathers the weights of a sharded module for a block; call it on all workers."""
    if not is_sharded(module):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


@contextmanager
def unsynchronized(module: nn.Module) -> Iterator[None]:
    """Leaves gradients on their workers, for all but the last part of a batch."""
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
    """Returns complete tensors, gathered if they are sharded; call it on all workers."""
    return {k: t.full_tensor() if _is_shard(t) else t for k, t in tensors.items()}


def distributed(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns this worker's shards of complete tensors, as those of ``like`` are, by name."""
    result = dict(tensors)
    for name, tensor in tensors.items():
        wanted = like.get(name)
        if _is_shard(wanted) and wanted.shape == tensor.shape:
            from torch.distributed.tensor import distribute_tensor

            place = wanted.device_mesh, wanted.placements
            result[name] = distribute_tensor(tensor.to(wanted.device), *place, src_data_rank=None)
    return result


def _is_shard(tensor: Tensor | None) -> bool:
    """Returns whether a tensor is sharded, so that this worker has a part of it."""
    if not torch.distributed.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
