"""Checkpoints: a folder of safetensors and JSON, written whole or not at all, never pickle.

``save`` and ``load`` are for flows; a ``Checkpoint`` also holds what a training needs to go on
exactly.
"""

__all__ = ["UNFIT", "Checkpoint", "check", "copied", "flatten", "load", "parameter_of", "read",
           "rebuild", "save", "seal", "spec_of", "unflatten", "write"]  # fmt: skip

import copy
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from . import __version__, bases
from .architectures import ARCHITECTURES, LEARNED
from .errors import BadInput
from .files import load_tensors, previous, replaced, sha256
from .flow import Flow
from .preprocessing import build

PARTS = ("model", "ema", "optimizer")

COUNTS = ("blocks", "depth", "levels")
"""Options of architectures that count layers."""

UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What is raised where the parts of a checkpoint do not fit each other, or what takes them."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        model: The raw weights, preprocessing included.
        state: Step, clocks, flow spec and whatever else training needs, JSON-able.
        ema: The weights' exponential moving average; empty of a flow alone.
        optimizer: The optimizer's and the anchor's tensors; empty of a flow alone.
    """

    model: dict[str, Tensor]
    state: dict[str, Any]
    ema: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)


def save(flow: Flow, folder: str | Path) -> None:
    """Writes a flow into a folder, with the names and types of its columns.

    A checkpoint that was there is replaced: it is found whole, or the new one is. The flow's
    ``history`` is not kept.

    Arguments:
        flow: The flow; one that no architecture made can be loaded ``into`` one like it alone.
        folder: The folder to make, ``~`` for one's home; if it is there, it is empty or has a
            checkpoint alone.

    Raises:
        ValueError: if a file, or a folder with something else, is there.
        OSError: if it cannot be written, as on a full disk; what was there before stays.

    Example:
        >>> import tempfile
        >>> flow = ebflow.architectures.dense((3,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ebflow.save(flow, f"{folder}/flow")
        ...     found = ebflow.load(f"{folder}/flow")
        >>> torch.equal(found.log_prob(x), flow.log_prob(x))
        True
    """
    folder = Path(folder).expanduser()
    _check_free(folder)
    write(folder, Checkpoint(flow.state_dict(), {"flow": spec_of(flow), "columns": flow.columns}))


def _check_free(folder: Path) -> None:
    """Raises ValueError if more than a checkpoint would be replaced."""
    if folder.is_file():
        raise ValueError(f"folder: found the file {folder}, expected the name of a folder")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    kept = {name for name in names if name.endswith(".safetensors")} | {"state.json"}
    if names and (names - kept or "state.json" not in names):
        raise ValueError(
            f"folder: found {folder} with {min(names - kept or names)}, expected a new folder, an "
            "empty one, or one of a checkpoint alone, which is replaced"
        )


def load(folder: str | Path, *, weights: str | None = None, into: Flow | None = None) -> Flow:
    """Returns the trained flow of a checkpoint, preprocessing included, on the CPU.

    Its ``log_prob`` takes raw data, in the units of the data set. Its parameters ask for no
    gradient: to train it further, call ``requires_grad_()``.

    Arguments:
        folder: The folder of a checkpoint, or of a run that has one in ``checkpoint/``.
        weights: ``ema`` for the averaged weights, ``model`` for the raw ones; None: the averaged
            ones if there are any.
        into: A flow built as the saved one was, which takes its weights and is returned; needed
            for flows that no architecture made.

    Raises:
        BadInput: if the folder is not a checkpoint, or its parts do not fit each other.
    """
    if weights not in (None, "ema", "model"):
        raise ValueError(f"weights: found {weights!r}, expected 'ema' or 'model'")
    folder = Path(folder).expanduser()
    if not (folder / "state.json").exists() and (folder / "checkpoint").is_dir():
        folder = folder / "checkpoint"
    state = _state(folder / "state.json")
    part = weights or ("ema" if "ema" in state["sha256"] else "model")
    tensors, spec = getattr(read(folder, only=(part,)), part), state["flow"]
    try:
        if into is None:
            _check_spec(f"{folder}/state.json, flow", spec, tensors)
            into = rebuild(spec)
        elif not into.cut:
            _check_preprocessing(f"{folder}/state.json, flow", spec, tensors)
            into = _behind(into, spec)
        into.load_state_dict(tensors)
    except BadInput:
        raise
    except UNFIT as error:
        raise BadInput(
            f"{folder}: its weights do not fit its state.json, written by ebflow "
            f"{state.get('ebflow')}: {error}; train it anew"
        ) from error
    into.columns = state.get("columns")
    return into.eval().requires_grad_(False)


def rebuild(spec: dict[str, Any]) -> Flow:
    """Returns the flow of a spec, with untrained weights."""
    architecture, dtype = ARCHITECTURES[spec["architecture"]], getattr(torch, spec["dtype"])
    base = bases.build(spec["base"]) if spec.get("base") else None
    flow = architecture(spec["shape"], **spec["options"], base=base, dtype=dtype)
    return _behind(flow, spec)


def _behind(flow: Flow, spec: dict[str, Any]) -> Flow:
    """Returns a flow behind the preprocessing of a spec, if that has one."""
    if not spec.get("preprocessing"):
        return flow
    chain = build(spec["preprocessing"])
    return flow.preprocessed(chain, shape=spec["event_shape"], match_after=spec["match_after"])


def write(folder: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint whole or not at all; on the disk before it has its name.

    Raises:
        OSError: if it cannot be written, as on a full disk; what was there before stays.
    """
    with replaced(Path(folder)) as draft:
        sums = {}
        for name in PARTS:
            if tensors := getattr(checkpoint, name):
                content = safetensors.torch.save(_apart(tensors))
                _save(content, draft / f"{name}.safetensors")
                sums[name] = hashlib.sha256(content).hexdigest()
        code = {"ebflow": __version__, "torch": torch.__version__}
        state = seal({"code": code, **checkpoint.state, "sha256": sums})
        (draft / "state.json").write_text(json.dumps(state, indent=1))


def read(folder: str | Path, *, only: tuple[str, ...] = PARTS) -> Checkpoint:
    """Reads a checkpoint, or the named parts of one.

    Raises:
        BadInput: if a file is missing or damaged, naming it.
    """
    folder = Path(folder)
    if not folder.exists() and previous(folder).exists():
        folder = previous(folder)
    state = _state(folder / "state.json")
    missing = [name for name in only if name != "optimizer" and name not in state["sha256"]]
    if missing and only != PARTS:
        raise BadInput(f"{folder}: found no weights {missing[0]!r}, expected the other ones")
    parts = {name: _tensors(folder, name, state) for name in state["sha256"] if name in only}
    return Checkpoint(**{"model": {}, **parts}, state=state)


def check(folder: str | Path) -> dict[str, Any]:
    """Compares every file of a checkpoint with its SHA-256; returns the state.

    Raises:
        BadInput: if a file is missing or damaged, naming it.
    """
    state = _state(Path(folder) / "state.json")
    for name, expected in state["sha256"].items():
        if name != "state":
            _check_sum(Path(folder) / f"{name}.safetensors", expected)
    return state


def seal(state: dict[str, Any]) -> dict[str, Any]:
    """Returns a state with the SHA-256 of its own canonical JSON among those of the files."""
    plain = json.loads(json.dumps(state))
    plain["sha256"].pop("state", None)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    plain["sha256"]["state"] = hashlib.sha256(text.encode()).hexdigest()
    return plain


def spec_of(flow: Flow) -> dict[str, Any]:
    """Returns what ``rebuild`` makes a flow of, JSON-able."""
    dtype = str(flow.like.dtype).removeprefix("torch.")
    spec = dict(flow.spec or {})
    if flow.base.spec is None:  # of a user's own: the flow is built by whoever loads it
        spec.pop("architecture", None)
    return {**spec, "base": flow.base.spec, "dtype": dtype}


def _save(content: bytes, path: Path) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:  # which does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors of which no two share memory, as a layer used twice has them."""
    found, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        address = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return found


def _tensors(folder: Path, name: str, state: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / f"{name}.safetensors"
    _check_sum(path, state["sha256"].get(name))
    try:
        return load_tensors(path)[0]
    except (safetensors.SafetensorError, OSError) as error:
        raise BadInput(f"{path}: found a damaged file ({error}), expected safetensors") from error


def _state(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = path if path.parent.is_dir() else path.parent
        raise BadInput(f"{what}: not found, expected the state of a checkpoint")
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


def _check_sum(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise BadInput(f"{path}: not found, expected a file of the checkpoint")
    if sha256(path) != expected:
        raise BadInput(f"{path}: found a damaged file, expected the SHA-256 of its state.json")


def _check_spec(where: str, spec: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raises BadInput if a spec asks for more than the weights have, before anything is made.

    Counts of layers are at most the number of tensors, sizes at most the largest in the file, or
    256, that of bytes; types are left to what takes them.
    """
    if spec.get("architecture") is None:
        raise BadInput(
            f"{where}: found no architecture, as of a custom flow: build one like it, and "
            "load(…, into=flow)"
        )
    shape, options = spec.get("shape"), spec.get("options")
    if spec["architecture"] not in ARCHITECTURES or not isinstance(options, dict):
        names = ", ".join(ARCHITECTURES)
        raise BadInput(f"{where}: found no known architecture with options, expected {names}")
    if not (isinstance(shape, list) and shape and all(type(n) is int and n > 0 for n in shape)):
        raise BadInput(f"{where}, key shape: found {shape!r}, expected the sizes of an example")
    largest = max((n for t in tensors.values() for n in t.shape), default=1)
    images = spec["architecture"] in ("convolutional", "glow")
    whole = not images or options.get("activation") in LEARNED
    _at_most(f"{where}, key shape", math.prod(shape) if whole else shape[0], largest)
    for name, value in options.items():
        bound = len(tensors) if name in COUNTS else max(largest, 256)
        for number in _numbers(value):
            _at_most(f"{where}, key {name}", number, bound)
    base = spec.get("base")
    if isinstance(base, dict) and base.get("roots"):
        found = tensors.get("base.roots")
        if found is None or list(found.shape) != base["roots"]:
            raise BadInput(
                f"{where}, key base: found sizes {base['roots']}, expected the weights'"
            )
        _at_most(f"{where}, key base", base.get("features", 0), largest)
    _check_preprocessing(where, spec, tensors)


def _check_preprocessing(where: str, spec: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raises BadInput if the preprocessing of a spec asks for more than the weights have."""
    preprocessing = spec.get("preprocessing")
    if isinstance(preprocessing, dict) and preprocessing.get("normalize") != "none":
        largest = max((n for t in tensors.values() for n in t.shape), default=1)
        _at_most(f"{where}, key preprocessing", preprocessing.get("width", 0), largest)
    for number in _numbers(preprocessing):
        if not math.isfinite(number):
            raise BadInput(f"{where}, key preprocessing: found {number}, expected a finite number")


def _at_most(where: str, number: float, bound: int) -> None:
    if not math.isfinite(number) or abs(number) > bound:
        raise BadInput(f"{where}: found {number}, expected at most the {bound} of the weights")


def _numbers(value: object) -> Iterator[int | float]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, int | float):
        yield value


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """Returns a copy in the CPU's memory, which shares no tensor with the original."""
    parts = {
        name: {k: t.detach().to("cpu", copy=True) for k, t in getattr(checkpoint, name).items()}
        for name in PARTS
    }
    return Checkpoint(**parts, state=copy.deepcopy(checkpoint.state))


def flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Returns the tensors of an optimizer's state by name, and its parameter groups."""
    tensors = {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    return tensors, state["param_groups"]


def unflatten(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the optimizer's state that ``flatten`` took apart."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        state.setdefault(parameter_of(key), {})[key.split(".", 2)[2]] = value
    return {"state": state, "param_groups": groups}


def parameter_of(key: str) -> int:
    """Returns the number of the parameter that a tensor of the optimizer belongs to."""
    return int(key.split(".", 2)[1])
