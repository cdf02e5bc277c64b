"""Reasons why stages run again: the code, options or inputs that differ from the last time."""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pipelines import store
from pipelines.engine.stages import Work

Provenance = Mapping[str, Any]

# A stage is compared with the last one of equal options and inputs, or else of equal name.
SHARED = (("stage", "options", "inputs"), ("stage", "name", "title"))


class Reasons:
    """Reasons why the stages of a run are not cached.

    Arguments:
        name: The name of the run.

    Attributes:
        texts: By stage its reasons, once each.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: dict[str, list[str]] = {}

    @cached_property
    def _earlier(self) -> dict[str, Provenance]:
        """The last provenance in the store by the parts that it may share with another one."""
        return {part: old for _, old in store.provenances() for part in _shared(old)}

    def add(self, work: Work) -> str:
        """Returns why a stage runs; nothing if it is new, or another one had the same reason."""
        new = work.provenance(self.name)
        old = next(filter(None, map(self._earlier.get, _shared(new))), new)
        text, texts = "; ".join(_changes(old, new)), self.texts.setdefault(work.stage.name, [])
        if not text or text in texts:
            return ""
        texts.append(text)
        return f"runs again: {text}"


def _shared(provenance: Provenance) -> Iterator[str]:
    return (json.dumps([provenance[name] for name in names]) for names in SHARED)


def _changes(old: Provenance, new: Provenance) -> Iterator[str]:
    """Yields what has changed."""
    if old["code"] != new["code"]:
        versions = dict.fromkeys([old["version"], new["version"]])
        yield f"its code changed ({' → '.join(versions)})"
    for part in ("options", "inputs"):
        now, before = new[part], old[part]
        if names := [name for name in now if now[name] != before.get(name, now[name])]:
            yield f"its {part} changed ({', '.join(names)})"
