"""Checkpoints: a folder of safetensors and JSON, written whole or not at all, never pickle."""

__all__ = ["Checkpoint", "check", "load", "read", "seal", "write"]

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import __version__
from .architectures import ARCHITECTURES
from .data.preprocessing import build
from .durable import move
from .errors import BadInput
from .flow import Flow
from .spec_checks import UNFIT, check_spec

FILES = ("model", "ema", "optimizer")
CODE = {"ebflow": __version__, "torch": torch.__version__}


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
    It is on the disk before it has its name.

    Raises:
        OSError: If it cannot be written, as on a full disk; what was there before stays.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _draft(folder) as temporary:
        for name in FILES:
            _save(getattr(checkpoint, name), temporary / f"{name}.safetensors")
        sums = {name: _sum(temporary / f"{name}.safetensors") for name in FILES}
        state = seal({**checkpoint.state, "code": CODE, "sha256": sums})
        (temporary / "state.json").write_text(json.dumps(state, indent=1))
        previous = _previous(folder)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        move(temporary, folder)
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Gives an empty neighbour of a folder, and takes it away again if writing fails."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file({k: t.detach().contiguous() for k, t in tensors.items()}, path)
    except safetensors.SafetensorError as error:
        # safetensors tells the system's error as a text.
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def seal(state: dict[str, Any]) -> dict[str, Any]:
    """Returns a state with the SHA-256 of its own canonical JSON among those of the files."""
    plain = json.loads(json.dumps(state))
    plain["sha256"].pop("state", None)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    plain["sha256"]["state"] = hashlib.sha256(text.encode()).hexdigest()
    return plain


def check(folder: str | Path) -> dict[str, Any]:
    """Compares every file of a checkpoint with its SHA-256; returns the state.

    Raises:
        BadInput: if a file is missing or damaged, naming it.
    """
    state = _state(Path(folder) / "state.json")
    for name in FILES:
        _check(Path(folder) / f"{name}.safetensors", state["sha256"].get(name))
    return state


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
    _check(path, state["sha256"].get(name))
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
    if seal(state)["sha256"]["state"] != state["sha256"].get("state"):
        raise BadInput(f"{path}: found a damaged file, expected the SHA-256 that it names")
    return state


def _check(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise BadInput(f"{path}: not found, expected a file of the checkpoint")
    if _sum(path) != expected:
        raise BadInput(f"{path}: found a damaged file, expected the SHA-256 of its state.json")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
