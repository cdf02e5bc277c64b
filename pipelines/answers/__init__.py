"""What is asked of a trained flow: scores, samples, what is missing, a service."""

__all__ = ["REFERENCE", "OfModel", "OfRows", "check_output"]

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ebflow.errors import BadInput

REFERENCE = "reference.safetensors"
"""File of log-densities of known rows in the folder of a checkpoint: see ``reference``."""


@dataclass(frozen=True)
class OfModel:
    """What every command about a trained flow is told."""

    model: Annotated[str, tyro.conf.Positional]
    """folder of a run or of a checkpoint, or a registered model: models:/NAME@ALIAS"""


@dataclass(frozen=True)
class OfRows(OfModel):
    """What every command is told that answers about rows of a source."""

    data: Annotated[str, tyro.conf.Positional]
    """source of the rows: all that --data.source of `ebflow run density` takes"""
    output: Path
    """Parquet file for what comes out"""
    seed: int = 0
    """where the dequantisation noise of integers comes from, and draws"""
    workers: int | None = None
    """processes of Ray Data, of one core each; None: this one, or with RAY_ADDRESS all it gives"""
    dry_run: bool = False
    """tell what would be answered; write nothing"""


def check_output(output: Path, suffix: str = ".parquet") -> None:
    """Raises BadInput unless a file of the kind can be written there."""
    if output.suffix != suffix or output.is_dir():
        raise BadInput(f"--output: found {output}, expected a file that ends in {suffix}")
    if not (folder := output.absolute().parent).is_dir():
        raise BadInput(f"--output: found no folder {folder}, expected one: make it")
