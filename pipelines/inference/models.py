"""A trained flow by its name: the folder of a run, a checkpoint, or a registered model."""

import tempfile
from dataclasses import dataclass
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

# The first argument of every command.
ModelName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL", help=MODEL_HELP)]


@dataclass(frozen=True)
class Model:
    """A trained flow, and the description of the data that it was trained on."""

    label: str  # its name in messages
    flow: Flow  # with its preprocessing
    reference: Reference | None = None  # None if no pipeline trained the flow

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


def load(name: str) -> Model:
    """Returns the model of a name.

    Raises:
        BadInput: If there is none, it is corrupt, or it has contexts without names.
    """
    if not name.startswith(REGISTERED):
        return _read(Path(name), name)
    with tempfile.TemporaryDirectory(prefix="ebflow-model-") as scratch:
        return _read(_downloaded(name, scratch) / "artifacts", name)


def _read(folder: Path, label: str) -> Model:
    """Returns the model of a checkpoint: that in a run's folder, or the folder itself."""
    if (folder / "checkpoint").is_dir():
        folder = folder / "checkpoint"
    if not (folder / "state.json").is_file():
        raise BadInput(
            option="MODEL",
            found=repr(label),
            expected="the folder of a run (runs/density/NAME) or of a checkpoint, or a registered "
            "model (models:/NAME@ALIAS or models:/NAME/VERSION)",
        )
    model = Model(label, checkpoint.load(folder), Reference.load(folder))
    if model.flow.context and model.context is None:
        raise BadInput(
            file=label,
            found="a conditional flow whose contexts have no names",
            expected="one trained on a frame of contexts, or by ebflow run density --data.context",
            hint="Use ebflow.load and log_prob(x, context=c)",
        )
    return model


def _downloaded(name: str, folder: str) -> Path:
    """Returns the folder of a registered model's files."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from pipelines.tracking.backend import client, default_store, is_permanent, mlflow_errors

    with mlflow_errors(), default_store(client().tracking_uri):
        try:
            return Path(mlflow.artifacts.download_artifacts(name, dst_path=folder))
        except MlflowException as error:
            if not is_permanent(error):
                raise
            raise BadInput(
                option="MODEL",
                found=name,
                expected=f"a registered model: {' '.join(str(error).split())[:200]}",
                hint="MLflow registers the model that the page of a run shows",
            ) from None
