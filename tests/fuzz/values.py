"""JSON of any values in place of what a file holds, and bytes that are damaged."""

import json

from hypothesis import strategies as st

NUMBERS = [0, -1, 1, 2**31, 2**63, 10**400, 0.5, 1e308]
WORDS = ["", "x", "load", "float64", "uint8", "train", "../x.parquet", "\x00", "0" * 3000]

# What a reader of JSON, or of what JSON says, may choke on
CHOKING = (
    b"", b"[" * 100_000, b'{"a": ' * 50_000, b"9" * 5000, b'{"step": ' + b"9" * 5000 + b"}",
    b"\xef\xbb\xbf{}", b"NaN", b"null", b'"\\ud800"', b"{}",
    b'{"flow": {}, "sha256": {"model": NaN}}',
)  # fmt: skip


def values():
    """Returns values of JSON."""
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    odd = st.sampled_from(NUMBERS) | st.sampled_from(WORDS)
    return st.recursive(plain | odd, _nested, max_leaves=5)


def _nested(inner):
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)


def _places(tree):
    """Yields every key of nested mappings and lists with what has it."""
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


@st.composite
def changed(draw, text, focus=()):
    """A JSON object in which up to three entries are others, or gone.

    ``focus`` names keys of which every second change is one, or is inside of one.
    """
    tree = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        inside = [tree[key] for key in focus if isinstance(tree.get(key), dict | list)]
        near = [place for inner in inside for place in _places(inner)]
        owner, key = draw(st.sampled_from(places) | st.sampled_from(near or places))
        if draw(st.integers(0, 4)):
            owner[key] = draw(values())
        else:
            del owner[key]
    return json.dumps(tree).encode()


def spoiled(draw, data, others, near, put=st.binary(max_size=8)):  # noqa: B008
    """Returns bytes after one change, every second time at a place of the range ``near``."""
    at = draw(st.integers(*near) | st.integers(0, len(data)))
    to = draw(st.integers(at, min(len(data), at + 64)))
    before, here, rest = data[:at], data[at:to], data[to:]
    bit, byte = 1 << draw(st.integers(0, 7)), draw(st.sampled_from([b"\0", b"\x7f", b"\xff"]))
    found = {
        "turn": before + bytes([one ^ bit for one in data[at : at + 1]]) + data[at + 1 :],
        "set": before + byte * (to - at) + rest,
        "cut": before + rest,
        "double": before + 2 * here + rest,
        "put": before + draw(put) + data[at:],
        "other": before + draw(st.sampled_from(others))[at:to] + rest,
        "end": before,
    }
    return found[draw(st.sampled_from([*found, "turn", "turn", "put"]))]
