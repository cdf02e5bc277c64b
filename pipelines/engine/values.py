"""What redun compares by content: configurations, sources and artefacts."""

__all__ = ["Artefact", "CanonicalSection", "ContentList", "Source"]

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from redun.hashing import hash_struct
from redun.value import ProxyValue, Value, get_type_registry

from pipelines import store
from pipelines.config import canonical


class CanonicalSection(ProxyValue):
    """Hashes a configuration by its canonical JSON, which leaves out what changes no number."""

    type = BaseModel
    type_name = "ebflow.Section"

    def get_hash(self, data: bytes | None = None) -> str:
        """Returns the hash of the keyed fields."""
        return hash_struct(["Section", type(self.instance).__name__, canonical(self.instance)])


class ContentList(ProxyValue):
    """Hashes a list by its elements' hashes; redun would by their pickle, in which it matters
    whether equal elements are the same object.
    """

    type = list
    type_name = "builtins.list"

    def get_hash(self, data: bytes | None = None) -> str:
        """Returns the hash of the elements' hashes."""
        return hash_struct(["List", *map(get_type_registry().get_hash, self.instance)])


class Source(Value):
    """Data outside the store: known by its content, read at its location.

    Arguments:
        location: Name or path.
        digest: SHA-256 of the content.
    """

    type_name = "ebflow.Source"

    def __init__(self, location: str, digest: str) -> None:
        self.location, self.digest = location, digest

    def get_hash(self, data: bytes | None = None) -> str:
        """Returns the hash of the content alone."""
        return hash_struct(["Source", self.digest])

    def __getstate__(self) -> dict[str, str]:
        return {"location": self.location, "digest": self.digest}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)


class Artefact(Value):
    """The folder that a stage wrote: known by its content, valid while that is unchanged.

    Arguments:
        stage: Name of the stage.
        key: Its key in the store.
        record: What the store recorded of it.
    """

    type_name = "ebflow.Artefact"

    def __init__(self, stage: str, key: str, record: store.Record) -> None:
        self.stage, self.key, self.record = stage, key, record

    @property
    def path(self) -> Path:
        """The folder; with a storage it is copied to this machine's store if need be.

        Raises:
            BadInput: If the storage has not what was stored.
        """
        return store.present(store.artefact(self.stage, self.key))

    @property
    def place(self) -> str:
        """Where all nodes see it: a path, or a URL."""
        return store.place(store.artefact(self.stage, self.key))

    def is_valid(self) -> bool:
        """Looks at the store's record, and at what it is of."""
        found = store.record(self.stage, self.key)
        return found is not None and found.digest == self.record.digest

    def get_hash(self, data: bytes | None = None) -> str:
        """Returns the hash of the content alone."""
        return hash_struct(["Artefact", self.stage, self.record.digest])

    def __getstate__(self) -> dict[str, Any]:
        return {"stage": self.stage, "key": self.key, "record": self.record}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
