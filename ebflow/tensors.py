"""Tensors in one file of safetensors, with what is told of them."""

__all__ = ["load", "save"]

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def save(tensors: Mapping[str, Tensor], path: Path, **told: str) -> None:
    """Writes tensors by their names, and text by its name."""
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata=told)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns what ``save`` wrote, equal to the bit.

    Raises:
        SafetensorError: If the file is damaged.
    """
    with safe_open(path, "pt") as file:
        # Cloned into memory aligned as torch allocates it: BLAS rounds by alignment.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}
