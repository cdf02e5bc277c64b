"""Reasons why stages run again: the code, options or inputs that differ from the last time."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines import store
from pipelines.engine.stages import Work

Provenance = Mapping[str, Any]

# Parts of a provenance that a stage shares with the earlier one that it is compared with: an equal
# configuration comes first, then the same name.
SHARED = (("config", "inputs"), ("name", "title"))


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
        found = (self.earlier[stage][part] for part in _shared(new) if part in self.earlier[stage])
        key, old = next(found, (work.key, new))
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
    if options := ", ".join(_differing(old["config"], new["config"])):
        yield f"its options changed ({options})"
    now, before = new["inputs"], old["inputs"]
    if inputs := ", ".join(name for name in now if now[name] != before.get(name)):
        yield f"its inputs changed ({inputs})"


def _differing(old: Any, new: Any, name: str = "") -> Iterator[str]:  # noqa: ANN401
    """Yields the dotted names of options that both configurations have, with other values."""
    if _is_section(old) and _is_section(new):
        for inner in filter(old[1].__contains__, new[1]):
            dotted = f"{name}.{inner}" if name else inner
            yield from _differing(old[1][inner], new[1][inner], dotted)
    elif old != new:
        yield name


def _is_section(value: Any) -> bool:  # noqa: ANN401
    """True for a section of a configuration: its class and its options."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], dict)
