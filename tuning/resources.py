"""How many trials are in Ray's queue at a time, and what each of them takes."""

__all__ = ["Machine", "concurrency", "per_trial", "this_machine"]

from collections.abc import Mapping

from ebflow.errors import BadInput
from pipelines.cluster import environment
from pipelines.cluster.connection import DRIVER
from pipelines.config import Training
from pipelines.gradient_alignment.config import ClassifierConfig
from tuning.config import SearchConfig

Machine = Mapping[str, float]
"""CPUs and GPUs of a machine, by kind."""

Trained = Training | ClassifierConfig
"""What a trial trains."""


def this_machine() -> Machine | None:
    """Returns what an embedded Ray has; None where there is a cluster, which may grow."""
    if not environment.embedded():
        return None
    import torch

    return {"CPU": environment.cpus(), "GPU": torch.cuda.device_count()}


def per_trial(config: Trained) -> Machine:
    """Returns what Tune is to reserve for a trial: a trainer in its own process, or a driver."""
    return DRIVER if _workers(config) > 1 else config.needs


def concurrency(config: Trained, search: SearchConfig, machine: Machine | None) -> int:
    """Returns how many trials are to be in Ray's queue at a time.

    A cluster may grow, so that all trials that need no result of others are there at once.

    Arguments:
        config: The training of a trial.
        search: Its ``max_concurrent`` is a bound, ``random`` the number of those trials.
        machine: What this machine has, where it is all that there is; None: a cluster.

    Raises:
        BadInput: If not a single trial fits on this machine, as it would wait for ever.
    """
    if machine is None:
        return search.max_concurrent or search.random
    room = min(machine.get(kind, 0) // need for kind, need in config.needs.items())
    if room < 1:
        raise BadInput(_too_much(config, machine))
    return int(min(room, search.max_concurrent or room))


def _workers(config: Trained) -> int:
    return config.cluster.workers if isinstance(config, Training) else 1


def _too_much(config: Trained, machine: Machine) -> str:
    kind, need = next((k, n) for k, n in config.needs.items() if n > machine.get(k, 0))
    option, mend = _option(config, kind)
    return (
        f"{option}, so that a trial needs {need:g} {kind}s, expected at most the "
        f"{machine.get(kind, 0):g} that there are: a trial would wait for ever ({mend})"
    )


def _option(config: Trained, kind: str) -> tuple[str, str]:
    """Returns what makes a trial too large, and what to change."""
    if isinstance(config, ClassifierConfig):
        threads = f"scale: found one of {config.threads} threads"
        return (
            "gpu: found True" if kind == "GPU" else threads,
            "set gpu False, or choose a smaller scale",
        )
    mend = "lower train.threads or cluster.workers, or set cluster.gpu False"
    if config.cluster.workers > 1:
        return f"cluster.workers: found {config.cluster.workers}", mend
    if kind == "GPU":
        return "cluster.gpu: found True", mend
    return f"train.threads: found {config.train.threads}", mend
