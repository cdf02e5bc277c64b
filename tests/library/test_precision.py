"""Where products are of the full precision, and where that is demanded."""

import pytest
import torch

from ebflow.precision import full_products, products

SINGLE = torch.zeros(2, dtype=torch.float32)


def state():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_precision_is_set_for_a_while(precision):
    before = state()
    with pytest.raises(KeyError), products(precision):
        assert state() == (precision, precision != "highest")
        raise KeyError
    assert state() == before


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_single_precision_needs_full_products(precision):
    full_products(SINGLE)
    with products(precision):
        full_products(SINGLE.double())
        with pytest.raises(ValueError, match=f"precision: found {precision}, expected highest"):
            full_products(SINGLE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match="found half precision"):
        full_products(SINGLE.to(dtype))


def test_autocast_is_refused():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="no autocast"):
        full_products(SINGLE)
