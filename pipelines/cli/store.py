"""``ebflow store verify``: the artefacts of the store, read and compared with their records."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from pipelines import store
from pipelines.reporting.terminal import terminal


@dataclass(frozen=True)
class Verify:
    """Reads all artefacts of the store and lists those that are corrupt.

    A run compares only sizes and modification times. It recomputes corrupt artefacts once they
    are deleted.
    """


def verify(words: Sequence[str]) -> int:
    """Prints the folders of corrupt artefacts; returns 1 if there are any."""
    tyro.cli(Verify, prog="ebflow store verify", args=words)
    console, found = terminal(), list(store.corrupt())
    for folder in found:
        console.print(str(folder), soft_wrap=True)
    console.print(f"{len(found)} corrupt artefacts in {store.home()}", soft_wrap=True)
    return 1 if found else 0
