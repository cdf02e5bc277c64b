"""What is told of work that waits for a cluster: for a node to come up, or for others to end."""

from collections.abc import Mapping

from pipelines.cluster import environment


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
    kinds = [kind for kind in ("CPU", "GPU") if needs.get(kind, 0) > free.get(kind, 0)]
    lacking = (
        f"{needs[kind]:g} {kind}s, of which {free.get(kind, 0):g} are free" for kind in kinds
    )
    line = f"{what} waits for {' and '.join(lacking)} (`ray status`: which nodes come up)"
    return line if kinds else ""
