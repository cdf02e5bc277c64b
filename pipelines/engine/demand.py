"""What a stage asks of Ray, whose queue, placement and autoscaler go by it.

A task declares it as its option ``needs``: amounts by Ray's names of resources, or a function of
the stage's configuration that returns them. A stage that declares nothing takes one CPU.
"""

import math
from collections.abc import Mapping
from typing import Any

from pipelines.cluster import connection, environment

Needs = Mapping[str, float]
"""Amounts of ``CPU``, ``GPU`` and ``memory`` (bytes)."""

ALONE: Needs = {"CPU": math.inf}
"""All CPUs of a node: a benchmark wants the machine alone."""


def own(config: Any) -> Needs:  # noqa: ANN401
    """Returns what the configuration of a stage says that it keeps busy.

    Memory counts on a cluster alone: of a machine of one's own, only drivers take a share.
    """
    needs = config.needs
    if environment.embedded():
        return {kind: amount for kind, amount in needs.items() if kind != "memory"}
    return needs


def of_training(config: Any) -> Needs:  # noqa: ANN401
    """Returns what a training keeps busy in the process of its stage."""
    return connection.DRIVER if connection.launched(config.cluster) else own(config)


def threads_of(needs: Needs) -> int:
    """Returns the threads of torch for a stage: its CPUs, at least one.

    A stage that takes a whole node sets its own.
    """
    return 1 if math.isinf(needs["CPU"]) else max(1, int(needs["CPU"]))


def reserved(needs: Needs) -> dict[str, float]:
    """Returns the options of a Ray task that takes so much.

    This machine alone cannot grow: a stage with more threads than there are cores takes all.
    """
    cpus = needs["CPU"]
    if environment.embedded() or math.isinf(cpus):
        cpus = min(cpus, connection.largest_node())
    return {"num_cpus": cpus, "num_gpus": needs.get("GPU", 0), "memory": needs.get("memory", 0)}
