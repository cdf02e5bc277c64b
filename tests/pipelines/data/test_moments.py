import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.prepare import Moments

sizes = st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(lambda s: sum(s) > 0)


def batches(sizes, seed, width=4):
    rng = np.random.default_rng(seed)
    scale, shift = 10.0 ** rng.integers(-6, 6, width), 10.0 ** rng.integers(-3, 3, width)
    return [rng.normal(size=(n, width)) * scale + shift for n in sizes]


@settings(max_examples=50, deadline=None)
@given(sizes, st.integers(0, 1000))
def test_any_cut_into_batches_gives_the_moments_of_the_whole(sizes, seed):
    parts = batches(sizes, seed)
    moments = Moments(4)
    for part in parts:
        moments.update(part)
    whole = np.concatenate(parts)
    found = moments.summary()
    scale = np.abs(whole).max(axis=0)
    np.testing.assert_allclose(found["mean"] / scale, whole.mean(axis=0) / scale, atol=1e-13)
    np.testing.assert_allclose(found["std"] / scale, whole.std(axis=0) / scale, atol=1e-13)
    assert found["min"] == tuple(whole.min(axis=0))
    assert found["max"] == tuple(whole.max(axis=0))


def test_large_mean_keeps_its_variance():
    moments = Moments(1)
    values = 1e9 + np.arange(1000.0)[:, None]
    for part in np.split(values, 10):
        moments.update(part)
    assert moments.summary()["std"][0] == pytest.approx(values.std(), rel=1e-12)
