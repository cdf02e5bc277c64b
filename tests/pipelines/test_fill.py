"""The stage that puts removed entries back, by laws that are known."""

import math

import pytest
import torch

from pipelines.paper.config import FillConfig
from pipelines.paper.stages.fill import compared, crps


def test_crps_is_that_of_its_definition():
    draws = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.zeros(3, 2, dtype=torch.float64)
    apart = (draws.unsqueeze(2) - draws.unsqueeze(1)).abs().sum((1, 2)) / (5 * 4)
    torch.testing.assert_close(crps(draws, y), draws.abs().mean(1) - apart / 2)


def test_crps_of_a_normal_law():
    """E of (2 φ(0) − 1/√π) for y at the mean, within 4.5 errors of 2,000 rows of 4 draws."""
    noise = torch.Generator().manual_seed(1)
    draws = torch.randn(2_000, 4, 1, generator=noise, dtype=torch.float64)
    found = crps(draws, torch.zeros(2_000, 1, dtype=torch.float64))
    expected = 2 / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi)
    assert abs(float(found.mean()) - expected) < 4.5 * float(found.std()) / math.sqrt(2_000)


@pytest.mark.slow
def test_a_flow_betters_a_gaussians_mean_on_rows_that_are_no_gaussian():
    """Two clusters, in which the second column is known from the first but for its sign."""
    noise = torch.Generator().manual_seed(2)
    side = torch.randint(0, 2, (700, 1), generator=noise) * 2 - 1.0
    x = torch.cat([side, side.abs() + 1, -side], 1).double()
    x += 0.3 * torch.randn(x.shape, generator=noise, dtype=torch.float64)
    rows = {"train": x[:400], "validation": x[400:500], "test": x[500:]}
    found = compared(FillConfig(steps=40, draws=4), rows)
    assert found["study/removed"] == pytest.approx(0.2, abs=0.08)
    lead, error = (found[f"study/lead_over_gaussian_mean{end}"] for end in ("", "_se"))
    assert lead > 3 * error > 0
    assert 0 < found["study/crps_flow"] < found["study/crps_gaussian_mean"]
