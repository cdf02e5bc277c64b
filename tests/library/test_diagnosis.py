"""The statistics of latents, and what they are read as."""

import math

import numpy as np
import pytest
import torch

from ebflow.evaluation import Validation, diagnose, latent_statistics

from .bijections.cases import seeded

BLIND = {"latent/mean_norm2": 100.0, "latent/var_min": 1e-3}


def latents(batch=5000, size=10):
    return torch.randn(batch, size, generator=seeded())


def test_standard_latents():
    """Five standard errors: √(2 D)/B for the mean, √(2/B) for a variance."""
    found = latent_statistics(latents())
    assert abs(found["latent/mean_norm2"]) < 5 * math.sqrt(20) / 5000
    assert 1 - 0.1 < found["latent/var_min"] <= found["latent/var_max"] < 1 + 0.1


def test_squared_mean_is_unbiased():
    """Over 400 batches of 20 rows, a z-test at a false-alarm rate of 1e-4."""
    u = torch.randn(400, 20, 6, generator=seeded()) + 0.3
    found = np.array([latent_statistics(batch)["latent/mean_norm2"] for batch in u])
    assert abs(found.mean() - 6 * 0.09) < 3.9 * found.std() / 20


def test_a_direction_without_variance_is_seen_along_the_mean():
    u = latents()
    u[:, 3] = 10 + 0.01 * u[:, 3]
    found = latent_statistics(u)
    assert found["latent/mean_norm2"] == pytest.approx(100, rel=0.01)
    assert found["latent/var_min"] < 0.01


def test_variances_are_numpys():
    u = latents(50, 4) * 3 + 1
    mean = u.mean(0) / u.mean(0).norm()
    found = latent_statistics(u, probes=1)
    along = np.var((u @ mean).numpy(), ddof=1)
    values = found["latent/var_min"], found["latent/var_max"]
    assert min(abs(v - along) for v in values) < 1e-10


def test_images_are_flattened():
    u = latents(50, 6)
    assert latent_statistics(u.view(50, 1, 2, 3)) == latent_statistics(u)


def test_statistics_of_one_row_are_numbers():
    assert all(math.isfinite(v) for v in latent_statistics(latents(1)).values())


BEST = Validation(120.0, 119.0, -30.0)
NOW = {
    "blind": Validation(180.0, 179.0, -40.0),
    "over-fitting": Validation(180.0, 90.0, -40.0),
    "over-fitting by another loss": Validation(180.0, 90.0, -20.0),
    "converged": Validation(120.1, 119.1, -30.0),
}


@pytest.mark.parametrize("name", NOW)
def test_diagnoses(name):
    told = diagnose(NOW[name], BEST, BLIND)
    words = ("blind", "over-fitting", "converged")
    assert [word for word in words if word in told] == [name.split(" by ")[0]]
    assert ("anchor" in told) == (name == "blind")
    assert f"{NOW[name].nll:.1f}" in told and "120.0" in told and "\n" not in told
