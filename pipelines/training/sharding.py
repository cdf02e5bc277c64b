"""Weights that several workers share.

Workers have copies of the weights (DDP), or each has a shard of them (FSDP2). Sharded weights
(``fully_shard``) are gathered for a step and freed after it. Of a worker's memory, the moments of
the optimizer, the averaged weights and the gradients at rest then shrink as 1/workers; during a
step the weights and their gradient are complete. The mathematics sees complete weights only.
PyTorch's sharding is imported when weights are sharded: the import takes as long as torch's.

References:
    PyTorch FSDP: experiences on scaling fully sharded data parallel (Zhao et al., 2023),
    arXiv:2304.11277.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

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


def _is_sharded(module: nn.Module) -> bool:
    return hasattr(module, "unshard")


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Gathers the weights of a sharded module for a block; call it on all workers."""
    if not _is_sharded(module):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


def unsynchronized(module: nn.Module) -> AbstractContextManager[None]:
    """Leaves gradients on their workers, for all but the last part of a batch."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return module.no_sync()
    return _unsynchronized_shards(module) if _is_sharded(module) else nullcontext()


@contextmanager
def _unsynchronized_shards(module: nn.Module) -> Iterator[None]:
    module.set_requires_gradient_sync(False)
    yield
    module.set_requires_gradient_sync(True)


def full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns complete tensors, gathered if they are sharded; call it on all workers."""
    return {k: t.full_tensor() if hasattr(t, "full_tensor") else t for k, t in tensors.items()}


def sharded(tensor: Tensor, like: Tensor | None) -> Tensor:
    """Returns this worker's shard of a complete tensor, if ``like`` is one of the same shape."""
    if not hasattr(like, "placements") or like.shape != tensor.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    place = like.device_mesh, like.placements
    return distribute_tensor(tensor.to(like.device), *place, src_data_rank=None)
