"""What a user of the wheel does, by a Python that has its core dependencies alone."""

import sys
from importlib.resources import files
from importlib.util import find_spec

import ebflow

ABSENT = ("mlflow", "pyarrow", "pydantic", "ray", "redun")

assert "torch" not in sys.modules, "import ebflow takes torch"
assert files("ebflow").joinpath("py.typed").is_file(), "types are not told"
found = [name for name in ABSENT if find_spec(name) is not None]
assert not found, f"more than the core dependencies: {found}"

import torch  # noqa: E402

flow = ebflow.architectures.dense((4,))
x = flow.sample(10, generator=torch.Generator().manual_seed(0))
assert x.shape == (10, 4)
assert flow.log_prob(x).shape == (10,) and flow.log_prob(x).isfinite().all()
assert flow.score(x).shape == (10, 4) and flow.score(x).isfinite().all()
print("used", ebflow.__file__)
