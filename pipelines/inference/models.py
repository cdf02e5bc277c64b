"""A trained flow by its name: the folder of a run, a checkpoint, or a registered model."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import tyro

from ebflow import checkpoint
from ebflow.errors import BadInput
from ebflow.flow import Flow
from ebflow.tables import Columns
from pipelines.inference.reference import Reference

REGISTERED = "models:/"

MODEL_HELP = "folder of a run or of a checkpoint, or a registered model: models:/NAME@ALIAS"
ModelName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL", help=MODEL_HELP)]
"""The first argument of every command."""


@dataclass(frozen=True)
class Model:
    """A trained flow, and the description of the data that it was trained on.

    Arguments:
        label: Its name in messages.
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
        """The log-densities of training rows; None if no pipeline trained the flow."""
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
    """Yields the model of a name; its files exist until the end of the context.

    Raises:
        BadInput: If there is none, it is corrupt, or it has contexts without names.
    """
    with tempfile.TemporaryDirectory(prefix="ebflow-model-") as scratch:
        registered = name.startswith(REGISTERED)
        folder = _downloaded(name, scratch) / "artifacts" if registered else Path(name)
        model = Model(name, checkpoint_folder(folder, name))
        if model.flow.context and model.context is None:
            raise BadInput(
                file=name,
                found="a conditional flow whose contexts have no names",
                expected="one trained on a frame of contexts, or by ebflow run density "
                "--data.context",
                hint="Use ebflow.load and log_prob(x, context=c)",
            )
        yield model


def checkpoint_folder(folder: Path, label: str) -> Path:
    """Returns the folder of a checkpoint: that of a run's folder, or the folder itself.

    Raises:
        BadInput: If there is none.
    """
    for place in (folder, folder / "checkpoint"):
        if (place / "state.json").is_file():
            return place
    raise BadInput(
        option="MODEL",
        found=repr(label),
        expected="the folder of a run (runs/density/NAME) or of a checkpoint, or a registered "
        "model (models:/NAME@ALIAS or models:/NAME/VERSION)",
    )


def _downloaded(name: str, folder: str) -> Path:
    """Returns the folder of a registered model's files."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from pipelines.tracking import history
    from pipelines.tracking.backend import default_store, is_permanent, mlflow_errors, uri

    history.opened()
    with mlflow_errors(), default_store(uri()):
        try:
            return Path(mlflow.artifacts.download_artifacts(name, dst_path=folder))
        except MlflowException as error:
            if not is_permanent(error):
                raise
            raise BadInput(
                option="MODEL",
                found=name,
                expected=f"a registered model: {' '.join(str(error).split())[:200]}",
                hint="ebflow run density --register NAME --alias ALIAS makes one",
            ) from None
