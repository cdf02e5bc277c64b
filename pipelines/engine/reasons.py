"""Reasons why stages run again: the code, options or inputs that differ from the last time."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines import store
from pipelines.engine.stages import Work

Provenance = Mapping[str, Any]

# A stage is compared with the last one of equal options and inputs, or else of equal name.
SHARED = (("options", "inputs"), ("name", "title"))


class Reasons:
    """Reasons why the stages of a run are not cached.

    Arguments:
        name: The name of the run.

    Attributes:
        earlier: By stage and shared parts the key and the provenance that was used last.
        texts: By stage its reasons, once each.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.earlier: dict[str, dict[str, tuple[str, Provenance]]] = {}
        self.texts: dict[str, list[str]] = {}

    def add(self, work: Work) -> str:
        """Returns why a stage runs; nothing if it is new, or another one had the same reason."""
        stage, new = work.stage.name, work.provenance(self.name)
        if stage not in self.earlier:
            pairs = store.provenances(stage)
            self.earlier[stage] = {part: pair for pair in pairs for part in _shared(pair[1])}
        earlier = filter(None, map(self.earlier[stage].get, _shared(new)))
        key, old = next(earlier, (work.key, new))
        changed, texts = "; ".join(_changes(old, new)), self.texts.setdefault(stage, [])
        if not changed or changed in texts:
            return ""
        texts.append(changed)
        return f"{'runs again' if store.has_record(stage, key) else 'starts anew'}: {changed}"


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
