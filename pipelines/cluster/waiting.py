"""What is told of work that waits for a cluster: for a node to come up, or for others to end."""

from collections.abc import Mapping

from pipelines.cluster import environment

UNITS = {"CPU": ("CPUs", 1), "GPU": ("GPUs", 1), "memory": ("GiB of memory", 2**30)}
"""What resources are called, and a unit of each in Ray's."""


def waiting(what: str, needs: Mapping[str, float]) -> str:
    """Returns that something waits, for what, and what is free; empty if there is room for it.

    Arguments:
        what: What waits, as the line begins.
        needs: What it takes in all, by Ray's names.
    """
    import ray

    if environment.embedded():
        return ""
    free = ray.available_resources()
    lacking = [
        f"{needs[kind] / unit:g} {name}, of which {free.get(kind, 0) / unit:.3g} are free"
        for kind, (name, unit) in UNITS.items()
        if needs.get(kind, 0) > free.get(kind, 0)
    ]
    line = f"{what} waits for {' and '.join(lacking)} (`ray status`: which nodes come up)"
    return line if lacking else ""
