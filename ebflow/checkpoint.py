"""Checkpoints: a folder of safetensors and JSON, written whole or not at all, never pickle."""

__all__ = ["Checkpoint", "load", "read", "write"]

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .architectures import ARCHITECTURES
from .data.preprocessing import build
from .errors import BadInput
from .flow import Flow
from .provenance import code
from .spec_checks import UNFIT, check_spec

FILES = ("model", "ema", "optimizer")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        model: The raw weights, preprocessing included.
        ema: Their exponential moving average.
        optimizer: The optimiser's and the anchor's tensors.
        state: Step, clocks, flow spec and whatever else training needs, JSON-able.
    """

    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def write(folder: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint into a temporary neighbour and renames it to ``folder``.

    A checkpoint that was there is renamed first and removed last; ``read`` finds it meanwhile.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name in FILES:
        tensors = {k: t.detach().contiguous() for k, t in getattr(checkpoint, name).items()}
        save_file(tensors, temporary / f"{name}.safetensors")
    sums = {name: _sum(temporary / f"{name}.safetensors") for name in FILES}
    text = json.dumps({**checkpoint.state, "code": code(), "sha256": sums}, indent=1)
    (temporary / "state.json").write_text(text)
    previous = _previous(folder)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    temporary.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def read(folder: str | Path, *, only: tuple[str, ...] = FILES) -> Checkpoint:
    """Reads a checkpoint, or the named parts of one.

    Raises:
        BadInput: if a file is missing or damaged, naming it.
    """
    folder = Path(folder)
    if not folder.exists() and _previous(folder).exists():
        folder = _previous(folder)
    state = _state(folder / "state.json")
    parts = {name: _tensors(folder, name, state) if name in only else {} for name in FILES}
    return Checkpoint(**parts, state=state)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def load(folder: str | Path, *, weights: str = "ema") -> Flow:
    """Returns the trained flow of a checkpoint, preprocessing included, on the CPU.

    Its ``log_prob`` takes raw data, in the units of the data set. Its parameters ask for no
    gradient: to train it further, call ``requires_grad_()``.

    Arguments:
        folder: The checkpoint folder.
        weights: ``ema`` for the averaged weights, ``model`` for the raw ones.

    Raises:
        BadInput: if the folder is not a checkpoint, or its parts do not fit each other.
    """
    if weights not in ("ema", "model"):
        raise ValueError(f"weights: found {weights!r}, expected 'ema' or 'model'")
    checkpoint = read(folder, only=(weights,))
    tensors, spec = getattr(checkpoint, weights), checkpoint.state["flow"]
    if "architecture" in spec:
        elements = sum(tensor.numel() for tensor in tensors.values())
        check_spec(f"{folder}/state.json, flow", spec, elements)
    try:
        flow = rebuild(spec)
        flow.load_state_dict(tensors)
    except UNFIT as error:
        raise BadInput(f"{folder}: its weights do not fit its state.json: {error}") from error
    return flow.eval().requires_grad_(False)


def rebuild(spec: dict[str, Any]) -> Flow:
    """Returns the flow of a spec, with untrained weights."""
    dtype = getattr(torch, spec.get("dtype", "float32"))
    if "architecture" not in spec:
        raise BadInput("the checkpoint of a custom flow: build the flow, then load_state_dict")
    architecture = ARCHITECTURES[spec["architecture"]]
    flow = architecture(spec["shape"], **spec["options"], dtype=dtype)
    if spec.get("preprocessing"):
        chain = build(spec["preprocessing"])
        flow = flow.preprocessed(chain, match_after=spec["match_after"])
    return flow


def _tensors(folder: Path, name: str, state: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise BadInput(f"{path}: not found, expected a file of the checkpoint")
    if _sum(path) != state["sha256"].get(name):
        raise BadInput(f"{path}: found a damaged file, expected the SHA-256 of its state.json")
    try:
        # Cloned into memory aligned as torch allocates it: BLAS rounds by alignment.
        return {key: tensor.clone() for key, tensor in load_file(path).items()}
    except (safetensors.SafetensorError, OSError) as error:
        raise BadInput(f"{path}: found a damaged file ({error}), expected safetensors") from error


def _state(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"{path}: not found, expected the state of a checkpoint")
    try:
        state = json.loads(path.read_text())
    except (RecursionError, ValueError) as error:
        raise BadInput(f"{path}: found a damaged file ({error}), expected JSON") from error
    for key in ("flow", "sha256"):
        if not isinstance(state, dict) or not isinstance(state.get(key), dict):
            raise BadInput(f"{path}: found no key {key!r}, expected the state of a checkpoint")
    return state


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
