"""Sections of a configuration: frozen models whose fields explain themselves.

Field documentation is what ``--help`` shows. A field marked :data:`UNKEYED` changes no number, so
it is no part of the key by which a finished stage is found again.
"""

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

UNKEYED = {"keyed": False}

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
"""What a run may be called: files and folders are."""

NAMED = "1 to 200 letters, digits, '.', '_' and '-', the first of them a letter or a digit"
"""The same in words."""

Size = int | float
"""A split's size: a number of rows (a whole number) or a share of all rows (between 0 and 1)."""


class Section(BaseModel):
    """Frozen; an unknown key is an error; no infinities, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def changed(self, **values: Any) -> Self:  # noqa: ANN401
        """Returns it with other values, unchecked; a dictionary changes a section's own."""
        inner = {
            name: getattr(self, name).changed(**value)
            for name, value in values.items()
            if isinstance(value, dict)
        }
        return self.model_copy(update=values | inner)


class Threaded:
    """Beside :class:`Section`: of a stage that computes with ``threads`` threads."""

    @property
    def needs(self) -> dict[str, float]:
        """The CPU cores that it keeps busy."""
        return {"CPU": self.threads}


def canonical(section: Section) -> str:
    """Returns canonical JSON of what decides the numbers: the keyed fields, sorted."""
    return json.dumps(_keyed(section), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _keyed(value: object) -> object:
    if not isinstance(value, Section):
        return value
    fields = type(value).model_fields.items()
    keyed = [name for name, field in fields if field.json_schema_extra != UNKEYED]
    return {name: _keyed(getattr(value, name)) for name in keyed}
