"""A checkpoint as an MLflow model; ``model.py`` is the model's code."""

import re
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array

import ebflow
from pipelines.tracking.backend import default_store
from pipelines.tracking.run import StageRun

NEEDED = ("mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch")

# Types of columns in a signature, by the kind of their dtype; others are doubles.
TYPES = {"b": DataType.boolean, "i": DataType.long, "u": DataType.long, "O": DataType.string}

REFUSED = re.compile("[/:.%\"']")  # Characters that MLflow does not allow in the name of a model

# A few rows of raw data: a table's by the names of their columns, or with shape (N, *event).
Examples = pd.DataFrame | np.ndarray


def log_model(run: StageRun, checkpoint: Path, examples: Examples) -> str:
    """Logs a checkpoint as an MLflow model whose ``predict`` gives log-densities in nats.

    The model has the name of its run. It is code and safetensors: no pickle.

    Arguments:
        run: The run that gets it.
        checkpoint: Folder of the checkpoint.
        examples: A few rows.

    Returns:
        The model's URI.
    """
    with default_store(run.client.tracking_uri), mlflow.start_run(run_id=run.id) as logged:
        name = REFUSED.sub("-", logged.info.run_name)
        model = mlflow.pyfunc.log_model(name=name, **_parts(checkpoint, examples))
    return model.model_uri


def _parts(checkpoint: Path, examples: Examples) -> dict[str, Any]:
    if isinstance(examples, pd.DataFrame):  # MLflow has no type of decimals
        examples = examples.map(lambda cell: float(cell) if isinstance(cell, Decimal) else cell)
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1,))])
    return {
        "python_model": str(Path(__file__).with_name("model.py")),
        "artifacts": {"checkpoint": str(checkpoint)},
        "signature": ModelSignature(_inputs(examples), outputs),
        "input_example": examples,
        "code_paths": [str(Path(ebflow.__file__).parent)],
        # The code of the library is part of the model.
        "pip_requirements": [f"{name}=={version(name).partition('+')[0]}" for name in NEEDED],
    }


def _inputs(examples: Examples) -> Schema:
    """Returns columns by name, which MLflow puts in order, or one array."""
    if isinstance(examples, np.ndarray):
        return Schema([TensorSpec(examples.dtype, (-1, *examples.shape[1:]))])
    return Schema([ColSpec(_kind(column), name) for name, column in examples.items()])


def _kind(column: pd.Series) -> DataType | Array:
    values = column.dropna().infer_objects()  # text and booleans may lack values
    first = next(iter(values), "")
    if values.dtype.kind == "O" and not isinstance(first, str):
        return Array(TYPES.get(first.dtype.kind, DataType.double))
    return TYPES.get(values.dtype.kind, DataType.double)
