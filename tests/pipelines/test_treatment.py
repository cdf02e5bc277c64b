"""The description of what is done to a table's columns."""

import json

import numpy as np
import torch

from ebflow import marginals
from pipelines.density.preprocess import summary


def test_the_treatment_of_columns_is_described_by_name():
    random, n = np.random.default_rng(0), 4000
    mixed = np.where(random.random(n) < 0.6, 0.0, random.lognormal(size=n))
    parts = (random.integers(0, 9, n) * 0.5, random.uniform(0, 1, n), random.standard_t(1.5, n),
             mixed, random.integers(0, 3, n) / 3)  # fmt: skip
    x = torch.tensor(np.stack(parts, 1))
    found = summary(marginals.fit(x, bounds={1: (0.0, None)}), "abcde")
    assert found["grids"] == {"a": 0.5} and found["atoms"] == {"d": [0.0]}
    assert found["levels"] == {"e": [0.0, 1 / 3, 2 / 3]}
    assert found["bounds"]["b"] == [0.0, None] and {"c", "d"} <= set(found["tails"])
    assert json.loads(json.dumps(found)) == found and not found["exact"]
    exact = summary(marginals.fit(x, exact=True), "abcde")
    assert exact["exact"] == ["a", "e"] and not exact["grids"] and not exact["levels"]
