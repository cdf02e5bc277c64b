"""Workers of a training that Ray Train launches, and what they report."""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import ray.train
import ray.train.torch
import torch.distributed
from ray.train.backend import Backend
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

from ebflow.errors import BadInput, NonFinite
from pipelines import store
from pipelines.cluster.connection import largest_node
from pipelines.cluster.environment import embedded
from pipelines.config import Training
from pipelines.metrics_log import Row
from pipelines.tracking.run import Reporter
from pipelines.training.flow_training import train
from pipelines.training.loop import SAVE, WorkerContext
from pipelines.training.reports import FailureLimit, Reports

ADDRESS = "RAY_ADDRESS"
HEALTH_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
PLACE_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"

# Seconds that workers wait for their resources. A node that boots slowly is no failed start. Of a
# range, Ray Train counts again which nodes there are.
PLACE_S, RECOUNT_S = 10 * 365 * 86_400, 20

RESIZE_S = 10.0  # Seconds between looks at how many workers the cluster could run

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def launch(
    config: Training, data: Path, preprocessing: Path, work: Path, reporter: Reporter
) -> dict[str, Any]:
    """Trains by Ray Train, in processes of its own.

    Arguments and result are those of ``flow_training.fit``. Ray Train's controller,
    which is on this node, calls the reporter.
    """
    # Ray restarts workers if one does not answer for so long, or torch if one waits for another.
    patience, elastic = config.cluster.patience, config.cluster.elastic
    os.environ[HEALTH_TIMEOUT] = str(patience)
    os.environ[PLACE_TIMEOUT] = str(RECOUNT_S if elastic else PLACE_S)
    reports = Reports(reporter)
    callbacks = [reports, FailureLimit(reports, config.cluster.max_failures)]
    if elastic:
        from pipelines.training.resizes import Resizes  # needs Ray's developer API

        callbacks.append(Resizes())
    trainer = ray.train.torch.TorchTrainer(
        worker,
        train_loop_config={
            "arguments": (config, data, preprocessing, work),
            "store": store.identity(),
        },
        torch_config=OnLoopback()
        if embedded()
        else TorchConfig(backend=_backend(config), timeout_s=math.ceil(patience)),
        scaling_config=_scaling(config),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(work),
            failure_config=ray.train.FailureConfig(max_failures=-1),  # FailureLimit counts them
            callbacks=callbacks,
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    _report_wait(config, reporter)
    with _address():
        result = trainer.fit().return_value
    if "error" in result:
        raise result["error"]
    return result


@contextmanager
def _address() -> Iterator[None]:
    """Sets the address of Ray for the processes that Ray Train starts.

    Ray Train's cleaner asks at this address whether the controller of a stopped trial is dead. If
    it had to search, it would stop at a second Ray on the machine, and never remove the trial's
    placement group: all others would wait for its CPUs.
    """
    before = os.environ.get(ADDRESS)
    ENV_VARS_TO_PROPAGATE.add(ADDRESS)
    os.environ[ADDRESS] = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        os.environ.pop(ADDRESS)
        if before is not None:
            os.environ[ADDRESS] = before


def _report_wait(config: Training, reporter: Reporter) -> None:
    """Reports that the workers have to wait, if the cluster has too little free for them."""
    free, needs = ray.available_resources(), config.of_a_worker
    least = config.cluster.limits[0]
    if not embedded() and any(free.get(kind, 0) < least * needs[kind] for kind in needs):
        each = ", ".join(f"{amount:g} {kind}" for kind, amount in needs.items())
        line = f"waits for {config.cluster.workers} workers, each with {each} (`ray status`)"
        reporter.progress(0.0, "waits", line)


def _scaling(config: Training) -> ray.train.ScalingConfig:
    """Returns what Ray reserves for the workers; on this machine alone, no more than it has."""
    (fewest, most), needs = config.cluster.limits, config.of_a_worker
    if embedded():
        needs = {kind: amount for kind, amount in needs.items() if kind in ("CPU", "GPU")}
        share = math.floor(1e4 * largest_node() / fewest) / 1e4
        needs["CPU"] = min(needs["CPU"], share)
    return ray.train.ScalingConfig(
        num_workers=(fewest, most) if config.cluster.elastic else most,
        elastic_resize_monitor_interval_s=RESIZE_S,
        use_gpu=config.cluster.gpu > 0,
        resources_per_worker=needs,
    )


def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Trains; returns the result, or ``error``: what no restart would mend.

    Raises:
        BadInput: If this worker does not see the store or the data. The others, which may see
            them, wait for it until Ray ends them all.
    """
    config, data, preprocessing, work = job["arguments"]
    context = replace(launched(), save=SAVE if config.cluster.elastic else None)
    try:
        if not embedded():
            store.require_same_store(job["store"])
        elif context.shard[1] > 1:
            _meet(work, *context.shard, config)
        inputs = map(store.ensure_local, (data, preprocessing))
        return train(config, *inputs, work, context)
    except NonFinite as error:  # alike on all
        return {"error": error}
    except BadInput as error:
        if context.shard[1] > 1:
            raise
        return {"error": error}
    finally:
        with suppress(OSError):  # unless it has checkpoints
            work.rmdir()


def launched() -> WorkerContext:
    """Returns the place of a worker that Ray Train launched, which waits for all to report."""
    context = ray.train.get_context()
    shard = (context.get_world_rank(), context.get_world_size())
    device = ray.train.torch.get_device()
    return WorkerContext(_report, shard, context.get_local_rank(), device)


class OnLoopback(TorchConfig):
    """Leaves it to the workers to meet: torch's TCP store would listen on every interface."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Ray Train's hooks around workers."""
        return _NoStore


class _NoStore(Backend):
    share_cuda_visible_devices = True


def _backend(config: Training) -> str | None:
    """Returns what sums gradients; NCCL, the default on GPUs, wants a GPU for each worker."""
    return "gloo" if 0 < config.cluster.gpu < 1 else None


def _meet(work: Path, rank: int, world: int, config: Training) -> None:
    """Lets workers on one machine meet by a file, and talk over loopback."""
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = LOOPBACK
    meeting = f"file://{work}/meeting-{broadcast_from_rank_zero(uuid4().hex)}"
    torch.distributed.init_process_group(
        _backend(config),
        init_method=meeting,
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=config.cluster.patience),
    )


def _report(rows: Sequence[Row], keep: bool) -> None:
    ray.train.report({"rows": rows, "keep": keep})
    if keep:  # Ray Train takes the next report only when it has this one
        ray.train.report({"rows": [], "keep": False})
