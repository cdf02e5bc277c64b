"""Calls of a user of the wheel, by a Python that has only its core dependencies."""

import sys
import tempfile
from importlib.resources import files
from importlib.util import find_spec

import ebflow

ABSENT = ("mlflow", "pyarrow", "pydantic", "ray", "redun")

assert "torch" not in sys.modules, "import ebflow takes torch"
assert files("ebflow").joinpath("py.typed").is_file(), "types are not told"
found = [name for name in ABSENT if find_spec(name) is not None]
assert not found, f"more than the core dependencies: {found}"

import numpy as np  # noqa: E402
import torch  # noqa: E402

x = np.random.default_rng(0).normal(size=(300, 4)) @ np.triu(np.ones((4, 4)))
flow = ebflow.fit(x, steps=60, progress=False)
assert flow.sample((2, 5)).shape == (2, 5, 4)
rows = torch.from_numpy(x)
assert flow.log_prob(rows).isfinite().all() and flow.score(rows).shape == (300, 4)
assert "val/nll" in flow.history[0]

with tempfile.TemporaryDirectory() as folder:
    ebflow.save(flow, folder + "/flow")
    again = ebflow.load(folder + "/flow")
assert torch.equal(again.log_prob(rows), flow.log_prob(rows))

given = ebflow.fit(x[:, 1:], context=x[:, 0], steps=60, progress=False)
density = given(torch.zeros(3, 1))
assert density.sample((7,)).shape == (7, 3, 3) and density.log_prob(torch.zeros(3)).shape == (3,)

model = ebflow.sklearn.FlowDensity(steps=20).fit(x)
assert model.score_samples(x).shape == (300,)
print("used", ebflow.__file__)
