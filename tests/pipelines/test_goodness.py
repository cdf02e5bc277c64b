"""The transform of latents, which is uniform of a true flow."""

import torch
from scipy import stats

from ebflow.randomness import generator
from pipelines.density.fit import Pit
from tests.library.conftest import double_precision  # noqa: F401


def test_latents_of_a_true_flow_have_a_uniform_transform():
    u = torch.randn(500, 2, 3, generator=generator(0, "u"), dtype=torch.float64)
    found = Pit.of(u)
    expected = stats.chi2(6).cdf(u.flatten(1).square().sum(1).numpy())
    torch.testing.assert_close(found.values, torch.from_numpy(expected))
    assert found.p_value > 0.01 and found.distance < found.bound
    assert Pit.of(1.2 * u).p_value < 1e-6
