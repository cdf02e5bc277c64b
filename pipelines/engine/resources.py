"""Resources that stages reserve, by which Ray queues and places them and starts nodes.

A stage declares ``needs``: amounts by Ray's names of resources, or a function from its
configuration to such amounts.
"""

import math
from collections.abc import Mapping
from typing import Any

from pipelines.cluster import connection, environment

Needs = Mapping[str, float]
"""Amounts of ``CPU``, ``GPU`` and ``memory`` (bytes)."""

WHOLE_NODE: Needs = {"CPU": math.inf}
"""All CPUs of a node, for a benchmark that nothing may disturb."""


def needs_from_config(config: Any) -> Needs:  # noqa: ANN401
    """Returns the resources that a configuration names; memory counts only on a cluster."""
    needs = config.needs
    if environment.embedded():
        return {kind: amount for kind, amount in needs.items() if kind != "memory"}
    return needs


def needs_of_training(config: Any) -> Needs:  # noqa: ANN401
    """Returns the resources of a training in the process of its stage."""
    if connection.uses_ray_train(config.cluster):
        return connection.DRIVER
    return needs_from_config(config)


def threads_of(needs: Needs) -> int:
    """Returns the threads of torch for a stage: its CPUs, at least one.

    A stage that takes a whole node sets its own.
    """
    return 1 if math.isinf(needs["CPU"]) else max(1, int(needs["CPU"]))


def ray_options(needs: Needs) -> dict[str, float]:
    """Returns the options of a Ray task with such needs.

    This machine cannot grow: here, a stage gets no more CPUs than there are.
    """
    cpus = needs["CPU"]
    if environment.embedded() or math.isinf(cpus):
        cpus = min(cpus, connection.largest_node())
    return {"num_cpus": cpus, "num_gpus": needs.get("GPU", 0), "memory": needs.get("memory", 0)}
