"""How a configuration differs from another, and from the defaults: fields by dotted names."""

from typing import Any

from pipelines.config.section import Section


def changes(base: Section, found: Section, prefix: str = "") -> dict[str, Any]:
    """Returns the fields of ``base`` that have another value in a configuration."""
    changed: dict[str, Any] = {}
    for name in type(base).model_fields:
        old, new = getattr(base, name), getattr(found, name)
        if isinstance(new, Section):
            changed |= changes(old, new, f"{prefix}{name}.")
        elif old != new:
            changed[f"{prefix}{name}"] = new
    return changed


def described(subject: str, base: Section, found: Section, apart: tuple[str, ...]) -> str:
    """Returns a subject with what differs, as ``dsm on dense (train.lr 0.01, model.depth 2)``.

    Fields whose names begin as one ``apart`` are left out.
    """
    changed = changes(base, found).items()
    told = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in changed
        if not name.startswith(apart)
    ]
    return f"{subject} ({', '.join(told)})" if told else subject
