"""How the workers of a training on one machine meet: by a file, with no port open to the network.

torch's usual meeting point is a TCP store, which listens on every interface. A lone worker meets
nobody.
"""

import os
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch.distributed
from ray.train.backend import Backend
from ray.train.torch import TorchConfig

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@dataclass
class FileRendezvous(TorchConfig):
    """Configures gloo, or NCCL where workers have GPUs, over loopback.

    Arguments:
        folder: Where the file of the meeting goes; all workers see it.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls when workers start and end."""
        return _FileBackend


class _FileBackend(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: FileRendezvous) -> None:  # noqa: ANN401
        world = len(worker_group)
        path = Path(backend_config.folder) / f"meeting-{uuid.uuid4().hex}"
        meeting = (_join, backend_config.backend, path, world)
        ranks = range(world if world > 1 else 0)
        ray.get([worker_group.execute_single_async(rank, *meeting, rank) for rank in ranks])

    def on_shutdown(self, worker_group: Any, backend_config: FileRendezvous) -> None:  # noqa: ANN401
        worker_group.execute_async(_leave)


def _join(backend: str, path: Path, world: int, rank: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = LOOPBACK
    torch.distributed.init_process_group(
        backend, init_method=f"file://{path}", rank=rank, world_size=world
    )


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
