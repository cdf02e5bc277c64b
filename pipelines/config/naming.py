"""Names of registered models and of their versions, checked before anything runs."""

import re

from ebflow.errors import BadInput

MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ALIAS = re.compile(r"(?!latest$|v\d+$)[a-z0-9_-]{1,255}", re.IGNORECASE)


def check_names(model: str | None, alias: str | None) -> None:
    """Raises BadInput unless MLflow takes the names, and an alias has a model."""
    if model is not None and not MODEL.fullmatch(model):
        raise BadInput(f"--register: found {model!r}, expected letters, digits, '.', '_' and '-'")
    if alias is None:
        return
    if model is None:
        raise BadInput(f"--alias: found {alias!r} without --register, expected both")
    if not ALIAS.fullmatch(alias):
        raise BadInput(
            f"--alias: found {alias!r}, expected letters, digits, '_' and '-', and neither latest "
            "nor a version such as v1"
        )
