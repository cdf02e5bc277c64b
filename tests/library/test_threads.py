"""The number of threads of a fit."""

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import ebflow
from ebflow.threads import WIDE, limited_threads


@pytest.fixture(autouse=True)
def three_threads():
    """Gives the process three threads, and restores its own number."""
    own = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(own)


@pytest.mark.parametrize(("width", "threads"), [(1, 1), (WIDE - 1, 1), (WIDE, 3)])
def test_only_wide_rows_share_a_step(width, threads):
    with limited_threads() as choose_threads:
        assert torch.get_num_threads() == 1
        choose_threads(width)
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


def test_an_error_restores_the_number():
    with pytest.raises(RuntimeError), limited_threads():
        raise RuntimeError
    assert torch.get_num_threads() == 3


def test_fit_trains_narrow_rows_with_one_thread_and_restores_the_number():
    seen = set()
    x = np.random.default_rng(0).normal(size=(300, 3))

    def watch(optimiser, args, kwargs):
        seen.add(torch.get_num_threads())

    hook = register_optimizer_step_pre_hook(watch)
    try:
        ebflow.fit(x, steps=3, progress=False)
    finally:
        hook.remove()
    assert seen == {1}
    assert torch.get_num_threads() == 3
