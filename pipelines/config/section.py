"""Sections of a configuration: frozen models whose fields explain themselves.

``--help`` shows the docstring of each field. A field marked :data:`UNKEYED` changes no number, so
it is not part of the keys of cached stages.
"""

from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

UNKEYED = {"keyed": False}

# Names of runs: they are names of files and folders, too.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"

# The size of a split: a number of rows, or a share of all rows (between 0 and 1).
Size = int | float


class Section(BaseModel):
    """A frozen part of a configuration; unknown keys, infinities and NaN are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    def changed(self, **values: Any) -> Self:  # noqa: ANN401
        """Returns a copy with other values, unchecked; a dictionary changes an inner section."""
        assert values.keys() <= type(self).model_fields.keys(), values
        inner = {
            name: getattr(self, name).changed(**value)
            for name, value in values.items()
            if isinstance(getattr(self, name), Section) and isinstance(value, dict)
        }
        return self.model_copy(update=values | inner)


def kinds(field: FieldInfo) -> dict[str, type[Section]]:
    """Returns the classes of a discriminated union by their names; of other fields none."""
    if not field.discriminator:
        return {}
    return {
        name: kind
        for kind in get_args(field.annotation)
        for name in get_args(kind.model_fields[field.discriminator].annotation)
    }


def changes(base: Section, other: Section, prefix: str = "") -> dict[str, Any]:
    """Returns the values of ``other`` that differ from those of ``base``, by dotted names."""
    changed: dict[str, Any] = {}
    for name, field in type(other).model_fields.items():
        old, new = getattr(base, name, field.default), getattr(other, name)
        if isinstance(new, Section):
            changed |= changes(old, new, f"{prefix}{name}.")
        elif old != new:
            changed[f"{prefix}{name}"] = new
    return changed
