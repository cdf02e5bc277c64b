"""Reasons why stages run again: the code, options or inputs that differ from the last time."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pipelines import store
from pipelines.engine.stages import Work

Provenance = Mapping[str, Any]

# A stage is compared with the last one of equal options and inputs, or else of equal name.
SHARED = (("stage", "options", "inputs"), ("stage", "name", "title"))


def reasons(works: Sequence[Work], name: str, present: Collection[str]) -> dict[str, str]:
    """Returns by stage why it runs again, in a run of a name; stages that are new have no reason.

    An input counts as changed if its stage runs again. Keys that are ``present`` are those of the
    same graph: they are no predecessors.
    """
    if not works:
        return {}
    fields = works[0].provenance(name).keys()  # another version may write others
    stages, keys = {work.stage.name for work in works}, {work.key for work in works}
    stored = [(key, old) for key, old in store.provenances(stages) if fields <= old.keys()]
    known = keys & {key for key, _ in stored}  # they were started before, and change nothing
    earlier = {part: old for key, old in stored if key not in present for part in _shared(old)}
    texts: dict[str, dict[str, None]] = {}
    for work in (work for work in works if work.key not in known):
        new = work.provenance(name)
        old = next(filter(None, map(earlier.get, _shared(new))), new)
        if text := "; ".join(_changes(old, new)):
            texts.setdefault(work.stage.name, {})[text] = None
    return {stage: ", or ".join(found) for stage, found in texts.items()}


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
