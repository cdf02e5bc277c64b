"""Masks: what is missing, in all colours alike, and from which seed."""

import pytest
import torch
from sklearn.datasets import load_digits

from pipelines.paper.stages.impute import masks


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 20), (8, 8)])
def test_a_mask_is_shared_by_colours_and_a_function_of_the_seed(shape):
    found = masks(shape, 5, seed=0)
    assert found.shape == (5, *shape) and found.dtype == torch.bool
    colours = found.reshape(5, -1, *shape[-2:])
    assert (colours == colours[:, :1]).all()
    assert torch.equal(found[:3], masks(shape, 3, seed=0))
    share = found.double().flatten(1).mean(1)
    assert (share > 0.05).all() and (share < 0.6).all()


def test_strokes_are_the_ink_of_digits():
    """At their own size: 0 … 16, missing from 8 on; every digit once before any twice."""
    count = len(load_digits().images)
    found = masks((8, 8), count + 2, seed=3)
    ink = torch.from_numpy(load_digits().images) >= 8
    assert torch.equal(
        found[:count].flatten(1).long().sum(0), ink.flatten(1).long().sum(0)
    ) and torch.equal(found[count:], found[:2])
    assert not torch.equal(found[:9], masks((8, 8), 9, seed=4))
