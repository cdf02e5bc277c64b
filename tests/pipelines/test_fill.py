"""The stage that puts removed entries back, by laws that are known."""

from itertools import groupby

import pytest
import torch

from pipelines.paper import fill
from pipelines.paper.config import FillConfig


@pytest.mark.slow
def test_a_flow_betters_a_gaussians_mean_on_rows_that_are_no_gaussian(monkeypatch):
    """Two clusters, in which the second column is known from the first but for its sign."""
    noise = torch.Generator().manual_seed(2)
    side = torch.randint(0, 2, (700, 1), generator=noise) * 2 - 1.0
    x = torch.cat([side, side.abs() + 1, -side], 1).double()
    x += 0.3 * torch.randn(x.shape, generator=noise, dtype=torch.float64)
    rows = {"train": x[:400], "validation": x[400:500], "test": x[500:]}
    told = []
    monkeypatch.setattr(fill, "DRAWS", 4)
    found = fill.scores(FillConfig(steps=40), rows, lambda *words: told.append(words))
    assert told == sorted(told, key=lambda words: words[0])
    assert [text for text, _ in groupby(text for _, text in told)] == [
        "fits the flow", "imputes the test rows"
    ]  # fmt: skip
    assert found["study/removed"] == pytest.approx(0.2, abs=0.08)
    lead, error = (found[f"study/lead_over_gaussian_mean{end}"] for end in ("", "_se"))
    assert lead > 3 * error > 0
    assert 0 < found["study/crps_flow"] < found["study/crps_gaussian_mean"]
