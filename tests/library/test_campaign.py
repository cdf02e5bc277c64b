"""A thousand short trainings of random configurations: none ends without a flow."""

import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch

import ebflow
from ebflow import objectives
from ebflow.architectures import ARCHITECTURES
from ebflow.recipes import IMAGES, LIKELIHOOD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("single_precision"),
]

CHUNKS, EACH = 20, 50
WHERE = re.compile(r"step \d+: .*in (layer \d+|the base) \(\w+\).*lower the learning rate")
OPTIONS = {
    "dense": [{"depth": 2}, {"depth": 1}, {"activation": "smooth_leaky_relu", "noise": 0.1}],
    "convolutional": [{"kernel_size": 3, "blocks": 1}, {"kernel_size": 3, "blocks": 2},
        {"kernel_size": 3, "blocks": 2, "activation": "spline"},
        {"kernel_size": 3, "blocks": 2, "activation": "spline", "hidden": 4}],
    "glow": [{"levels": 1, "depth": 1, "hidden": 4}, {"levels": 2, "depth": 1, "hidden": 4}],
    "pixelcnn": [{"depth": 1, "hidden": 4}],
    "coupling": [{"depth": 2, "hidden": 4}, {"depth": 1, "hidden": 4, "bins": 3}],
    "autoregressive": [{"depth": 2, "hidden": 4},
        {"depth": 1, "hidden": 4, "bins": 3, "mixing": "rotation"}],
    "structured": [{"depth": 2}, {"depth": 1, "structure": "lu"},
        {"depth": 1, "structure": "monarch"}],
}  # fmt: skip


def data(rng, image):
    """Returns rows, or images of 9 levels, that depend on a context."""
    context = rng.normal(size=(90, 2)).astype("float32")
    if image:
        pixels = rng.integers(0, 9, size=(90, 1, 4, 4)) + (context[:, 0] > 0)[:, None, None, None]
        return pixels.clip(0, 8).astype("uint8"), context
    width = rng.integers(2, 6)
    x = rng.normal(size=(90, width)) @ rng.normal(size=(width, width))
    return (10 ** rng.uniform(-2, 2) * (x + context[:, :1])).astype("float32"), context


def configuration(rng):
    """Returns arguments of ``fit``, drawn at random; rates reach from small to absurd."""
    architecture = rng.choice(sorted(ARCHITECTURES))
    x, context = data(rng, architecture in IMAGES)
    options, exact = OPTIONS[architecture], architecture == "pixelcnn"
    rate = 10 ** rng.uniform(-4, 2)
    kinds = (partial(torch.optim.Adam, fused=True), torch.optim.SGD)
    return {
        "x": x,
        "context": context if rng.random() < 0.5 else None,
        "levels": 9 if x.dtype == np.uint8 else None,
        "architecture": architecture,
        "options": options[rng.integers(len(options))],
        "objective": rng.choice(LIKELIHOOD if exact else sorted(objectives.OBJECTIVES)),
        "normalize": rng.choice(["none", "standardize", "whiten"]),
        "dtype": [torch.float32, torch.float64][rng.integers(2)],
        "optimizer": partial(kinds[rng.integers(2)], lr=rate),
        "steps": 12,
        "seed": int(rng.integers(2**31)),
    }


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_none_ends_without_a_flow(chunk):
    for number in range(EACH):
        given = configuration(np.random.default_rng([chunk, number]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            flow = ebflow.fit(given.pop("x"), given.pop("context"), progress=False, **given)
        assert isinstance(flow, ebflow.Flow), given
        broken = [str(w.message) for w in caught if w.category is RuntimeWarning]
        assert all(WHERE.search(text) for text in broken), (given, broken)
        assert all(p.isfinite().all() for p in flow.parameters()), given
