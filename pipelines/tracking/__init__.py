"""MLflow, as it is written to; ``pipelines/tracking/history.py`` reads it.

What needs MLflow is imported when it is first asked for.
"""

from importlib import import_module

from pipelines.tracking.backend import default_store, lasting, reaching, store_uri, uri

_HOMES = {
    "Follower": "following",
    "Sender": "following",
    "StageRun": "run",
    "Tracker": "tracker",
    "connect": "tracker",
    "log_model": "models",
    "save_model": "models",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
