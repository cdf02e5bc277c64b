"""Whole runs, each known by a file of its own: found without redun, which takes longer to import.

Only a run whose value is what each of its stages made is remembered, so that all can be checked.
"""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from pipelines import store
from pipelines.engine.outcome import Outcome, Status
from pipelines.engine.values import Artefact
from pipelines.store.files import write_text


def found(key: str) -> Outcome | None:
    """Returns what the run of a key gave, if all of it is unchanged, else None.

    Cost: reads every file of its artefacts (:func:`store.record`).
    """
    try:
        artefacts = _read(_file(key))
    except FileNotFoundError:
        return None
    if not artefacts or not all(artefact.is_valid() for artefact in artefacts):
        return None
    counts = Counter(artefact.stage for artefact in artefacts)
    return Outcome(tuple(artefacts), {name: Status(cached=n) for name, n in counts.items()})


def remember(key: str, outcome: Outcome, stages: Collection[str]) -> None:
    """Remembers what the run of a key gave, if its value is all that its stages made.

    Arguments:
        key: Of the whole run.
        outcome: What it gave.
        stages: Names of those of which the key has the code.

    Raises:
        ValueError: If another stage took part: a change of it would not be seen.
    """
    made, value = outcome.artefacts, outcome.value
    if others := {artefact.stage for artefact in made} - set(stages):
        raise ValueError(f"tasks: found none named {', '.join(sorted(others))}, expected all "
                         "stages of the pipeline's graph")  # fmt: skip
    jobs = sum(status.ran + status.cached for status in outcome.statuses.values())
    if isinstance(value, tuple) and list(value) == made and len(made) == jobs:
        stored = [(one.stage, one.key, asdict(one.record)) for one in made]
        _file(key).parent.mkdir(exist_ok=True)
        write_text(_file(key), json.dumps(stored))


def _read(path: Path) -> list[Artefact]:
    """Returns what a record names; nothing if it is damaged."""
    try:
        stored = json.loads(path.read_bytes())
        return [Artefact(*names, store.Record(**record)) for *names, record in stored]
    except (TypeError, ValueError):
        return []


def _file(key: str) -> Path:
    return store.home() / "finished" / f"{key}.json"
