"""Checkpoints that are damaged, and whole ones whose state says anything."""

import hashlib
import io
import json
import pickle
import zipfile

import torch
from hypothesis import strategies as st
from safetensors.torch import save

WEIGHTS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
STATE = "state.json"


def agreed(files):
    """Returns the files of a checkpoint with a state that names their SHA-256."""
    state = json.loads(files[STATE])
    sums = {name.partition(".")[0]: hashlib.sha256(files[name]).hexdigest() for name in WEIGHTS}
    return {**files, STATE: json.dumps({**state, "sha256": sums}).encode()}


def _foreign():
    """Returns files of other kinds, pickles among them."""
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, stream)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}).encode()
    return [
        b"",
        b"{}",
        b"null",
        b"\xff" * 8,
        pickle.dumps({"a": 1}),
        stream.getvalue(),
        other.getvalue(),
        save({}),
        save({"a": torch.full((2,), torch.nan)}),
        save({"layers.0.weight": torch.zeros(0)}),
        len(header).to_bytes(8, "little") + header + bytes(8),
        (2**62).to_bytes(8, "little") + b"{}",
    ]


@st.composite
def damaged(draw, files):
    """The files of a checkpoint, one of them damaged, another's or missing (None)."""
    files = dict(files)
    name = draw(st.sampled_from(sorted(files)))
    kind = draw(
        st.sampled_from(["turn", "turn", "put", "cut", "end", "foreign", "swap", "missing"])
    )
    data = bytearray(files[name])
    head = draw(st.booleans())
    at = draw(st.integers(0, min(len(data), 600) if head else len(data)))
    if kind == "turn" and at < len(data):
        data[at] ^= 1 << draw(st.integers(0, 7))
    elif kind == "put":
        data[at:at] = draw(st.binary(min_size=1, max_size=8))
    elif kind == "cut":
        del data[at : at + draw(st.integers(1, 64))]
    elif kind == "end":
        del data[at:]
    files[name] = {
        "foreign": lambda: draw(st.sampled_from(_foreign())),
        "swap": lambda: files[draw(st.sampled_from(sorted(files)))],
        "missing": lambda: None,
    }.get(kind, lambda: bytes(data))()
    told = name in WEIGHTS and files[name] is not None and draw(st.booleans())
    return agreed(files) if told else files


def _values():
    numbers = st.integers() | st.sampled_from([0, -1, 2**31, 2**63, 10**400]) | st.floats()
    plain = (
        st.none()
        | st.booleans()
        | numbers
        | st.sampled_from(["", "x", "load", "float64", "\x00", "0" * 3000])
    )
    return st.recursive(
        plain | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=5,
    )


def _places(tree):
    """Yields every key of nested mappings and lists with what has it."""
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


@st.composite
def states(draw, files):
    """The files of a checkpoint in whose state up to three entries are others, or gone."""
    state = json.loads(files[STATE])
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(state))
        of_the_flow = list(_places(state["flow"])) if isinstance(state.get("flow"), dict) else []
        tree, key = draw(st.sampled_from(places) | st.sampled_from(of_the_flow or places))
        if draw(st.integers(0, 4)):
            tree[key] = draw(_values())
        else:
            del tree[key]
    return {**files, STATE: json.dumps(state).encode()}


def texts():
    """Texts of JSON that its reader may choke on."""
    return st.sampled_from(
        [
            b"[" * 100_000,
            b'{"flow": ' * 50_000,
            b"9" * 5000,
            b'{"step": ' + b"9" * 5000 + b"}",
            b'{"flow": {}, "sha256": {}, "flow": 3}',
            b"\xef\xbb\xbf{}",
            b"NaN",
            b'"\\ud800"',
            b'{"flow": {}, "sha256": {"model": NaN}}',
        ]
    )
