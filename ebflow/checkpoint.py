"""Checkpoints: folders of safetensors and JSON, complete or absent, never pickle.

``save`` and ``load`` are for flows. A ``Checkpoint`` also has the state of a training, so that it
resumes exactly.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from . import __version__, bases
from .architectures import ARCHITECTURES
from .errors import BadInput
from .files import load_tensors, previous, replaced, save_tensors, sha256
from .fit_settings import check_device
from .flow import Flow
from .history import Report
from .preprocessing import build
from .recipes import IMAGES
from .tables import Columns

PARTS = ("model", "ema", "optimizer")
COUNTS = ("blocks", "depth", "levels")  # Options of architectures that count layers
SIZE = 4096  # Sizes in a specification that are allowed whatever the weights' shapes are

# Errors that PyTorch and this library raise if parts of a checkpoint do not fit together.
UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint; ``ema`` and ``optimizer`` are empty for a flow alone."""

    model: dict[str, Tensor]  #: The weights, preprocessing included
    state: dict[str, Any]  #: JSON-able: step, clocks, flow specification and others
    ema: dict[str, Tensor] = field(default_factory=dict)  #: The moving average of the weights
    optimizer: dict[str, Tensor] = field(default_factory=dict)  #: Its tensors and the anchor's


def save(flow: Flow, folder: str | Path) -> None:
    """Writes a flow, with the names and types of its columns, into a folder.

    An existing checkpoint is replaced as a whole. Its ``report`` is saved, its ``history`` is not.

    Arguments:
        flow: The flow. If no architecture created it, only ``load(…, into=flow)`` can load it.
        folder: The folder to create, or one that is empty or contains only a checkpoint.

    Raises:
        ValueError: if the folder is a file, or contains something else.
        OSError: if it cannot be written, as on a full disk; an old checkpoint stays.

    Example:
        >>> import tempfile
        >>> flow = ebflow.architectures.dense((3,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ebflow.save(flow, f"{folder}/flow")
        ...     loaded = ebflow.load(f"{folder}/flow")
        >>> torch.equal(loaded.log_prob(x), flow.log_prob(x))
        True
    """
    folder = Path(folder).expanduser()
    _check_free(folder)
    report = flow.report and asdict(flow.report)
    write(folder, Checkpoint(flow.state_dict(), {**description(flow), "report": report}))


def _check_free(folder: Path) -> None:
    """Raises ValueError if more than a checkpoint would be replaced."""
    if folder.is_file():
        raise ValueError(f"folder: {folder} is a file; pass the name of a folder")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    own = {name for name in names if name.endswith(".safetensors")} | {"state.json"}
    if names and (names - own or "state.json" not in names):
        raise ValueError(
            f"folder: {folder} contains {min(names - own or names)}; expected a new folder, an "
            "empty one, or one with only a checkpoint, which is replaced"
        )


def load(
    folder: str | Path, *, device: torch.device | str | None = None, into: Flow | None = None
) -> Flow:
    """Returns the flow of a checkpoint, preprocessing included, in evaluation mode.

    It has the averaged weights of a training, with ``requires_grad=False``; call
    ``requires_grad_()`` to train it further.

    Arguments:
        folder: The folder of a checkpoint, or of a run that has one in ``checkpoint/``.
        device: The device of the flow; None: the CPU.
        into: A flow built like the saved one, which gets the weights and is returned.

    Raises:
        BadInput: if the folder is not a checkpoint, or its parts do not fit together.
        OSError: if a file may not be read.
    """
    check_device(device)
    folder = Path(folder).expanduser()
    if not (folder / "state.json").exists() and (folder / "checkpoint").is_dir():
        folder = folder / "checkpoint"
    folder, state = _opened(folder)
    part = "ema" if "ema" in state["sha256"] else "model"
    tensors = getattr(read(folder, only=(part,)), part)
    try:
        flow = _flow(state["flow"], tensors, into, f"{folder}/state.json, flow")
        flow.load_state_dict(tensors)
        if state.get("columns") is not None:
            flow.columns = Columns.from_dict(state["columns"])
            str(flow.columns)  # uses every attribute, so that a corrupt one is found here
        flow.report = Report(**state["report"]) if state.get("report") else None
    except BadInput:
        raise
    except UNFIT as error:
        problem = f"its weights do not fit its state.json, written by ebflow {state.get('code')}"
        raise BadInput(f"{problem}: {error}", file=folder, hint="Train it again") from error
    return flow.to(device).eval().requires_grad_(False)


def _flow(spec: dict[str, Any], tensors: dict[str, Tensor], into: Flow | None, where: str) -> Flow:
    """Returns a flow of the right form, with any weights."""
    if into is not None:
        return into if into.n_preprocessing else _preprocessed(into, spec)
    if spec.get("architecture") is None:
        hint = "A custom flow was saved: build a flow like it, and call load(…, into=flow)"
        raise BadInput(file=where, found="no architecture", hint=hint)
    _check_sizes(spec, tensors)
    return rebuild(spec)


def rebuild(spec: dict[str, Any]) -> Flow:
    """Returns the flow of a specification, with untrained weights."""
    architecture, dtype = ARCHITECTURES[spec["architecture"]], getattr(torch, spec["dtype"])
    base = bases.build(spec["base"]) if spec.get("base") else None
    flow = architecture(spec["shape"], **spec["options"], base=base, dtype=dtype)
    return _preprocessed(flow, spec)


def _preprocessed(flow: Flow, spec: dict[str, Any]) -> Flow:
    """Returns a flow after the preprocessing of a specification, if it has one."""
    if not spec.get("preprocessing"):
        return flow
    chain = build(spec["preprocessing"])
    return flow.preprocessed(chain, shape=spec["event_shape"], match_after=spec["match_after"])


def write(folder: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint completely or not at all, and flushes it to the disk.

    Raises:
        OSError: if it cannot be written, as on a full disk; an old checkpoint stays.
    """
    with replaced(Path(folder)) as draft:
        sums = {}
        for name in PARTS:
            if tensors := getattr(checkpoint, name):
                save_tensors(tensors, draft / f"{name}.safetensors")
                sums[name] = sha256(draft / f"{name}.safetensors")
        code = {"ebflow": __version__, "torch": torch.__version__}
        state = seal({"code": code, **checkpoint.state, "sha256": sums})
        (draft / "state.json").write_text(json.dumps(state, indent=1))


def read(folder: str | Path, *, only: tuple[str, ...] = PARTS) -> Checkpoint:
    """Reads a checkpoint, or the named parts of one.

    Raises:
        BadInput: if a file is missing or corrupt, with its name.
        OSError: if a file may not be read.
    """
    folder, state = _opened(folder)
    parts = {name: _tensors(folder, name, state) for name in only if name in state["sha256"]}
    return Checkpoint(**{"model": {}, **parts}, state=state)


def check(folder: str | Path) -> dict[str, Any]:
    """Compares every file of a checkpoint with its SHA-256, and returns the state.

    Raises:
        BadInput: if a file is missing or corrupt, with its name.
    """
    folder, state = _opened(folder)
    for name, expected in state["sha256"].items():
        if name != "state":
            _check_sum(folder / f"{name}.safetensors", expected)
    return state


def seal(state: dict[str, Any]) -> dict[str, Any]:
    """Returns a state with the SHA-256 of its own canonical JSON."""
    plain = json.loads(json.dumps(state, default=np.generic.item))
    plain["sha256"].pop("state", None)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    plain["sha256"]["state"] = hashlib.sha256(text.encode()).hexdigest()
    return plain


def description(flow: Flow) -> dict[str, Any]:
    """Returns a flow's specification, the argument of ``rebuild``, and its columns, JSON-able."""
    dtype = str(flow.dtype).removeprefix("torch.")
    spec = {**(flow.spec or {}), "base": flow.base.spec, "dtype": dtype}
    if flow.base.spec is None:  # a user's own base: whoever loads the flow must build it
        spec.pop("architecture", None)
    return {"flow": spec, "columns": None if flow.columns is None else flow.columns.to_dict()}


def _tensors(folder: Path, name: str, state: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / f"{name}.safetensors"
    _check_sum(path, state["sha256"][name])
    try:
        return load_tensors(path)[0]
    except safetensors.SafetensorError as error:
        raise BadInput(f"corrupt ({error})", file=path, expected="safetensors") from error


def _opened(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """Returns the folder, the previous one if a crash came between two renames, and its state."""
    folder = Path(folder)
    if not folder.exists() and previous(folder).exists():
        folder = previous(folder)
    path = folder / "state.json"
    if not path.is_file():
        what = path if path.parent.is_dir() else path.parent
        raise BadInput("not found", file=what, expected="a checkpoint")
    try:
        state = json.loads(path.read_text())
    except (RecursionError, ValueError) as error:
        raise BadInput(f"corrupt ({error})", file=path, expected="JSON") from error
    for key in ("flow", "sha256"):
        if not isinstance(state, dict) or not isinstance(state.get(key), dict):
            raise BadInput(f"no key {key!r}", file=path, expected="the state of a checkpoint")
    if seal(state)["sha256"]["state"] != state["sha256"].get("state"):
        raise BadInput("corrupt: its contents do not have the SHA-256 in it", file=path)
    return folder, state


def _check_sum(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise BadInput("not found", file=path, expected="a file of the checkpoint")
    if sha256(path) != expected:
        raise BadInput("corrupt: it does not have the SHA-256 in state.json", file=path)


def _check_sizes(spec: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raises ValueError if a flow would be much larger than its weights, and fill the memory."""
    shape, options = spec["shape"], spec["options"]
    largest = max((SIZE, *(n for t in tensors.values() for n in t.shape)))
    if spec["architecture"] in IMAGES and options.get("activation") != "spline":
        sizes = [("shape", n) for n in shape]  # its kernels are smaller than an image
    else:
        sizes = [("shape", math.prod(shape))]
    width = (spec.get("preprocessing") or {}).get("width", 0)
    if width and width != math.prod(spec["event_shape"]):
        raise ValueError(f"preprocessing of {width} columns for events {spec['event_shape']}")
    for name, number in (*sizes, *_numbers(options), *_numbers(spec.get("base"))):
        most = len(tensors) if name in COUNTS else largest
        if not abs(number) <= most:
            raise ValueError(f"{name}: found {number}, expected at most {most}")


def _numbers(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers of nested dictionaries and lists, with their innermost names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int | float):
        yield name, value
