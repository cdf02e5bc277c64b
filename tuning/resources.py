"""How many trials run at a time: as many as the machines have room for, and never none."""

__all__ = ["Machine", "concurrency", "machines", "per_trial", "this_machine"]

import os
from collections.abc import Mapping, Sequence

from ebflow.errors import BadInput
from pipelines.alignment.config import ClassifierConfig
from pipelines.config import Training

Machine = Mapping[str, float]
"""CPUs and GPUs of one machine, by kind."""

Trained = Training | ClassifierConfig
"""What a trial trains."""

DRIVER: Machine = {"CPU": 0, "memory": 1}
"""What a trial takes itself if it launches workers: a byte, as Tune wants it to take something.

Were it any part of a CPU, workers that need all CPUs would wait for ever.
"""


def this_machine() -> Machine:
    """Returns what an embedded Ray has."""
    import torch

    return {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}


def machines() -> list[Machine]:
    """Returns what the nodes of the running Ray have."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def per_trial(config: Trained) -> Machine:
    """Returns what Tune is to reserve for a trial: a trainer in its own process, or a driver."""
    return DRIVER if _workers(config) > 1 else config.needs


def concurrency(config: Trained, found: Sequence[Machine], most: int | None) -> int:
    """Returns how many trials are to run at a time.

    Arguments:
        config: The training of a trial. One worker needs its CPUs or its GPU on one machine;
            several may lie on different ones.
        found: What there is.
        most: What the user allows; None: no bound.

    Raises:
        BadInput: If not a single trial fits, as it would wait for ever.
    """
    ((kind, need),) = config.needs.items()
    if _workers(config) > 1:
        room = sum(machine.get(kind, 0) for machine in found) // need
    else:
        room = sum(machine.get(kind, 0) // need for machine in found)
    if room < 1:
        raise BadInput(_too_much(config, found))
    return int(min(room, most or room))


def _workers(config: Trained) -> int:
    return config.cluster.workers if isinstance(config, Training) else 1


def _too_much(config: Trained, found: Sequence[Machine]) -> str:
    ((kind, need),) = config.needs.items()
    there = max(machine.get(kind, 0) for machine in found)
    if _workers(config) > 1:
        there = sum(machine.get(kind, 0) for machine in found)
    option, mend = _option(config)
    return (
        f"{option}, so that a trial needs {need:g} {kind}s, expected at most the {there:g} that "
        f"there are: a trial would wait for ever ({mend})"
    )


def _option(config: Trained) -> tuple[str, str]:
    """Returns what makes a trial too large, and what to change."""
    if isinstance(config, ClassifierConfig):
        threads = f"scale: found one of {config.threads} threads"
        return (
            "gpu: found True" if config.gpu else threads,
            "set gpu False, or choose a smaller scale",
        )
    mend = "lower train.threads or cluster.workers, or set cluster.gpu False"
    if config.cluster.workers > 1:
        return f"cluster.workers: found {config.cluster.workers}", mend
    if config.cluster.gpu:
        return "cluster.gpu: found True", mend
    return f"train.threads: found {config.train.threads}", mend
