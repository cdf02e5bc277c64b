"""How many trials are in Ray's queue at a time."""

from collections.abc import Mapping

from ebflow.errors import BadInput
from pipelines.cluster import environment
from pipelines.config import Section
from tuning.config import SearchConfig
from tuning.problems import problem

Machine = Mapping[str, float]
"""CPUs and GPUs of a machine, by kind."""


def this_machine() -> Machine | None:
    """Returns what an embedded Ray has; None where there is a cluster, which may grow."""
    if not environment.embedded():
        return None
    import torch

    return {"CPU": environment.cpus(), "GPU": torch.cuda.device_count()}


def concurrency(config: Section, search: SearchConfig, machine: Machine | None) -> int:
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
    for kind, need in config.needs.items():
        if need > machine.get(kind, 0):
            raise BadInput(
                f"found a trial that needs {need:g} {kind}s, expected at most the "
                f"{machine.get(kind, 0):g} that there are, as it would wait for ever: "
                f"{problem(search).smaller}"
            )
    room = min(machine[kind] // need for kind, need in config.needs.items())
    return int(min(room, search.max_concurrent or room))
