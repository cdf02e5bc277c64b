"""A checkpoint as an MLflow model; ``model.py`` is the code that goes with it."""

__all__ = ["log_model"]

from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

import ebflow
from pipelines.tracking.places import default_store
from pipelines.tracking.run import StageRun

NEEDED = ("mlflow", "numpy", "pyarrow", "safetensors", "torch")


def log_model(run: StageRun, checkpoint: Path, example: np.ndarray) -> str:
    """Logs a checkpoint as an MLflow model whose ``predict`` gives log-densities in nats.

    The model is code and safetensors: no pickle.

    Arguments:
        run: Where it goes.
        checkpoint: Folder of the checkpoint.
        example: A few rows of raw data, with shape (N, *event).

    Returns:
        The model's URI.
    """
    inputs = Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))])
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1,))])
    with default_store(run.client.tracking_uri), mlflow.start_run(run_id=run.id):
        model = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("model.py")),
            artifacts={"checkpoint": str(checkpoint)},
            signature=ModelSignature(inputs, outputs),
            input_example=example,
            code_paths=[str(Path(ebflow.__file__).parent)],
            pip_requirements=_requirements(),
        )
    return model.model_uri


def _requirements() -> list[str]:
    """Returns what the library, which goes with the model as code, needs of other packages."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in NEEDED]
