"""A trained flow as a command names it: a run's folder, a checkpoint, or a registered model."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ebflow import checkpoint
from ebflow.errors import BadInput
from ebflow.flow import Flow
from ebflow.tables import Columns
from pipelines.inference.reference import Reference

REGISTERED = "models:/"


@dataclass(frozen=True)
class Model:
    """A trained flow, and what is known of the data that it was trained on.

    Arguments:
        label: What the user called it, for messages.
        folder: The folder of its checkpoint.
    """

    label: str
    folder: Path

    @cached_property
    def flow(self) -> Flow:
        """The flow, preprocessing included."""
        return checkpoint.load(self.folder)

    @cached_property
    def reference(self) -> Reference | None:
        """The log-densities of training rows; None of a flow that no pipeline trained."""
        return Reference.load(self.folder)

    @property
    def arrays(self) -> dict[str, Any]:
        """The shape, type and levels of rows without names, and the name of their column."""
        return {} if self.flow.columns is None else self.flow.columns.notes

    @property
    def columns(self) -> Columns | None:
        """The columns of its data; None if its rows have no names."""
        return self.flow.columns or None

    @property
    def context(self) -> Columns | None:
        """The columns of its contexts; None if it has none."""
        return None if self.flow.columns is None else self.flow.columns.context


@contextmanager
def opened(name: str) -> Iterator[Model]:
    """Gives the model of a name, whose files are there meanwhile.

    Raises:
        BadInput: If there is none, it is damaged, or it has contexts without names.
    """
    with tempfile.TemporaryDirectory(prefix="ebflow-model-") as scratch:
        registered = name.startswith(REGISTERED)
        folder = downloaded(name, Path(scratch)) / "artifacts" if registered else Path(name)
        model = Model(name, found(folder, name))
        if model.flow.context and model.context is None:
            raise BadInput(
                f"{name}: found a conditional flow whose contexts have no names, expected "
                "one trained on a frame of contexts, or by ebflow run density --data.context: use "
                "ebflow.load and log_prob(x, context=c)"
            )
        yield model


def found(folder: Path, label: str) -> Path:
    """Returns the folder of the checkpoint of a run's folder, or of its own.

    Raises:
        BadInput: If there is none.
    """
    for place in (folder, folder / "checkpoint"):
        if (place / "state.json").is_file():
            return place
    raise BadInput(
        f"MODEL: found {label!r}, expected the folder of a run (runs/density/NAME) or of a "
        "checkpoint, or a registered model (models:/NAME@ALIAS or models:/NAME/VERSION)"
    )


def downloaded(name: str, folder: Path) -> Path:
    """Returns the folder of a registered model's files, from the store that is in use.

    Raises:
        BadInput: If there is no such model.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    from pipelines.tracking import history
    from pipelines.tracking.backend import default_store, is_permanent, mlflow_errors, uri

    history.opened()
    with mlflow_errors(), default_store(uri()):
        try:
            return Path(mlflow.artifacts.download_artifacts(name, dst_path=str(folder)))
        except MlflowException as error:
            if not is_permanent(error):
                raise
            line = " ".join(str(error).split())[:200]
            raise BadInput(
                f"MODEL: found {name}, expected a registered model: {line} "
                "(ebflow run density --register NAME --alias ALIAS makes one)"
            ) from None
