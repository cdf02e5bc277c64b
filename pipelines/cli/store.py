"""``ebflow store verify``: the artefacts of the store."""

from pipelines import store
from pipelines.reporting.terminal import terminal


def verify() -> int:
    """Reads all artefacts of the store and lists those that are corrupt.

    A run compares only sizes and modification times. It recomputes corrupt artefacts once they
    are deleted.
    """
    console, found = terminal(), list(store.corrupt())
    for place in found:
        console.print(place, soft_wrap=True)
    where = store.location(store.home())
    console.print(f"{len(found)} corrupt artefacts in {where}", soft_wrap=True)
    return 1 if found else 0
