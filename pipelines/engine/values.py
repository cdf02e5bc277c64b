"""Inputs and results of stages: sources and artefacts.

They are no dataclasses: redun would take those apart.
"""

from pathlib import Path

from pipelines import store


class Source:
    """Data outside the store: known by its content, read at its location.

    Arguments:
        location: Name or path.
        digest: SHA-256 of the content.
    """

    def __init__(self, location: str, digest: str) -> None:
        self.location, self.digest = location, digest


class Artefact:
    """The folder that a stage wrote, known by its content.

    Arguments:
        stage: Name of the stage.
        key: Its key in the store.
        record: What the store recorded of it.
    """

    def __init__(self, stage: str, key: str, record: store.Record) -> None:
        self.stage, self.key, self.record = stage, key, record

    @property
    def path(self) -> Path:
        """The folder in this machine's store; from a bucket it is copied if need be.

        Raises:
            BadInput: If the artefact in the bucket is corrupt.
        """
        return store.ensure_local(store.artefact(self.stage, self.key))

    @property
    def location(self) -> str:
        """The place at which all nodes see it: a path, or a URL."""
        return store.location(store.artefact(self.stage, self.key))


class Unmade(Exception):
    """Raised in a dry run if the graph itself depends on the content of a missing artefact."""


class Expected(Artefact):
    """An artefact that a run would make."""

    @property
    def path(self) -> Path:
        """No folder yet."""
        raise Unmade
