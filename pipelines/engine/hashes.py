"""What redun compares by content: configurations, lists, sources and artefacts."""

from pydantic import BaseModel
from redun.hashing import hash_struct
from redun.value import ProxyValue, get_type_registry

from pipelines.config import canonical
from pipelines.engine.values import Artefact, Source


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


class SourceValue(ProxyValue):
    """Hashes a source by its content alone."""

    type = Source
    type_name = "ebflow.Source"

    def get_hash(self, data: bytes | None = None) -> str:
        """Returns the hash of the content alone."""
        return hash_struct(["Source", self.instance.digest])


class ArtefactValue(ProxyValue):
    """Hashes an artefact by its content alone."""

    type = Artefact
    type_name = "ebflow.Artefact"

    def is_valid(self) -> bool:
        """Looks at the store's record, and at what it is of."""
        return self.instance.is_valid()

    def get_hash(self, data: bytes | None = None) -> str:
        """Returns the hash of the content alone."""
        return hash_struct(["Artefact", self.instance.stage, self.instance.record.digest])
