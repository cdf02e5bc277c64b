"""Checkpoints that are damaged, and whole ones whose state says anything."""

import hashlib
import io
import json
import pickle
import zipfile

import torch
from hypothesis import strategies as st
from safetensors.torch import save

from tests.pipelines.seals import sealed

from .values import CHOKING, changed, spoiled

WEIGHTS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
STATE = "state.json"


def agreed(files):
    """Returns the files of a checkpoint with a state that names their SHA-256."""
    state = json.loads(files[STATE])
    sums = {name.partition(".")[0]: hashlib.sha256(files[name]).hexdigest() for name in WEIGHTS}
    return {**files, STATE: json.dumps(sealed({**state, "sha256": sums})).encode()}


def _foreign():
    """Returns files of other kinds, pickles among them."""
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, stream)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}).encode()
    return [
        b"", b"{}", b"null", b"\xff" * 8, pickle.dumps({"a": 1}), stream.getvalue(),
        other.getvalue(), save({}), save({"a": torch.full((2,), torch.nan)}),
        save({"layers.0.weight": torch.zeros(0)}),
        len(header).to_bytes(8, "little") + header + bytes(8),
        (2**62).to_bytes(8, "little") + b"{}",
    ]  # fmt: skip


@st.composite
def damaged(draw, files):
    """The files of a checkpoint, one of them damaged, another's or missing (None)."""
    name, others = draw(st.sampled_from(sorted(files))), [*files.values(), *_foreign()]
    data = files[name]
    found = st.just(spoiled(draw, data, others, (0, min(len(data), 600))))
    files = {**files, name: draw(found | found | st.sampled_from([*others, None]))}
    consistent = name in WEIGHTS and files[name] is not None and draw(st.booleans())
    return agreed(files) if consistent else files


def states(files):
    """Returns the files of a checkpoint whose state says anything."""
    forged = changed(files[STATE], focus=["flow"]).map(_forged)
    texts = forged | changed(files[STATE]) | st.sampled_from(CHOKING)
    return texts.map(lambda text: {**files, STATE: text})


def _forged(text):
    return json.dumps(sealed(json.loads(text))).encode()
