"""Where what Ray, MLflow and redun have to say goes: into a file, not to the user."""

__all__ = ["writing"]

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TALKERS = ("alembic", "mlflow", "ray", "redun")
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Sends all logs and warnings to a file, at level INFO; appends to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for name in TALKERS:
        talker = logging.getLogger(name)
        talker.handlers.clear()
        talker.propagate = True
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()
