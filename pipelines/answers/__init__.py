"""What is asked of a trained flow: scores, samples, what is missing, a service."""

__all__ = ["REFERENCE", "check_output"]

from pathlib import Path

from ebflow.errors import BadInput

REFERENCE = "reference.safetensors"
"""File of log-densities of known rows in the folder of a checkpoint: see ``reference``."""


def check_output(output: Path, suffix: str = ".parquet") -> None:
    """Raises BadInput unless a file of the kind can be written there."""
    if output.suffix != suffix or output.is_dir():
        raise BadInput(f"--output: found {output}, expected a file that ends in {suffix}")
    if not (folder := output.absolute().parent).is_dir():
        raise BadInput(f"--output: found no folder {folder}, expected one: make it")
