"""A spec that asks for more than its weights, or for what is none, is told by its key."""

import copy

import pytest
import torch
from ebflow.spec_checks import check_spec

from ebflow.architectures import ARCHITECTURES
from ebflow.errors import BadInput

EVENTS = {"convolutional": (1, 8, 8), "glow": (1, 8, 8), "coupling": (2,)}
FRONT = {
    "width": 10,
    "levels": 17,
    "margin": 1e-6,
    "scale": 1.0,
    "extended": False,
    "normalise": "whiten",
}


def elements(flow):
    return sum(tensor.numel() for tensor in flow.state_dict().values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_passes(name):
    flow = ARCHITECTURES[name](EVENTS.get(name, (10,)), generator=torch.Generator())
    check_spec("x", {**flow.spec, "dtype": "float32"}, elements(flow))


@pytest.fixture
def spec():
    options = {"depth": 2, "alpha": 0.3, "residual": False}
    flow = {"architecture": "dense", "shape": [10], "options": options, "dtype": "float64"}
    return {**flow, "preprocessing": dict(FRONT), "match_after": True}


CHANGES = {
    "more features than weights": (["shape"], [400], "key shape: found [400], expected the sizes"),
    "a square of more": (["shape"], [30], "key weights: found 300, expected at least 900"),
    "no features": (["shape"], [0], "key shape"),
    "half a feature": (["shape"], [2.5], "key shape"),
    "more layers than weights": (["options", "depth"], 10**9, "key options"),
    "no number": (["options", "alpha"], float("nan"), "key options"),
    "an option of options": (["options", "alpha"], {"x": 1}, "key options"),
    "no list": (["options"], [1], "key options"),
    "a function of torch": (["dtype"], "load", "key dtype: found \"load\", expected one of"),
    "no architecture": (["architecture"], ["dense"], "key architecture"),
    "a truth of text": (["match_after"], "yes", "key match_after"),
    "a chain of numbers": (["preprocessing"], 3, "key preprocessing"),
    "a wider chain": (["preprocessing", "width"], 11, "preprocessing, key width: found 11"),
    "no levels": (["preprocessing", "levels"], 1, "preprocessing, key levels"),
    "a wide margin": (["preprocessing", "margin"], 0.5, "preprocessing, key margin"),
    "a scale of nothing": (["preprocessing", "scale"], 0.0, "preprocessing, key scale"),
    "an unknown key": (["preprocessing", "sclae"], 1.0, "preprocessing: found key sclae"),
}  # fmt: skip


@pytest.mark.parametrize("path, value, line", CHANGES.values(), ids=CHANGES)
def test_what_makes_no_sense_is_told(path, value, line, spec):
    check_spec("x", copy.deepcopy(spec), 300)
    owner = spec
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    with pytest.raises(BadInput) as told:
        check_spec("x", spec, 300)
    assert line in str(told.value)


def test_a_missing_key_is_told(spec):
    del spec["options"]
    with pytest.raises(BadInput, match="x: missing key options, expected texts, and numbers"):
        check_spec("x", spec, 300)
