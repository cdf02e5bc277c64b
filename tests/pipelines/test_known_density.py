"""A table given numbers and a category, whose density is known, from a run to scores."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.distributions import Normal

from .conftest import Store

A, B = np.array([[1.0, -0.5], [0.2, 2.0]]), np.array([[1.0, 0.0], [0.8, 0.6]])
ARMS = {"a": (0.0, 0.0), "b": (2.0, -2.0), "c": (5.0, 1.0)}


def linear(rows, seed):
    """Returns rows of x = A c + m(arm) + B n, and log p(x | c, arm), which is exact."""
    draws = np.random.default_rng(seed)
    c = draws.normal(size=(rows, 2)) * [3, 1] + [50, 0]
    arm = draws.choice(list(ARMS), rows)
    n = draws.normal(size=(rows, 2))
    x = c @ A.T + np.array([ARMS[name] for name in arm]) + n @ B.T
    columns = dict(zip(("x", "y", "age", "dose"), (*x.T, *c.T), strict=True))
    volume = np.log(abs(np.linalg.det(B)))
    return pa.table({**columns, "arm": arm}), Normal(0, 1).log_prob(torch.tensor(n)).sum(
        1
    ) - volume


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_linear_law_given_numbers_and_a_category(tmp_path, workers):
    """Within 0.05 nats of the truth on 4,000 new rows, whose mean difference errs by 0.005."""
    store, (new, truth) = Store(tmp_path), linear(4_000, seed=1)
    pq.write_table(linear(12_000, seed=0)[0], tmp_path / "trial.parquet")
    words = ("--data.source", "trial.parquet", "--data.context", "age", "dose", "arm")
    steps = ("--train.steps", 1500, "--train.max-seconds", 900, "--cluster.workers", workers)
    printed = store.run("run", "density", *words, *steps)
    assert "mixture of" in printed and "given the context" in " ".join(printed.split())
    scores = []
    for name, table in (("new", new), ("turned", new.select(["arm", "y", "dose", "x", "age"]))):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        store.run(
            "score", "runs/density/trial", f"{name}.parquet", "--output", f"{name}-s.parquet"
        )
        scores.append((tmp_path / f"{name}-s.parquet").read_bytes())
    assert scores[0] == scores[1]
    found = torch.tensor(pq.read_table(tmp_path / "new-s.parquet")["log_prob"].to_numpy())
    assert 0 < float((truth - found).mean()) < 0.05
    summary = store.summary("trial")
    assert abs(summary["test/gain"]) < 0.05 and abs(summary["test/gain_over_mixture"]) < 0.05
