import numpy as np

from ebflow.discrete import column_cells


def test_no_sample_is_negative_if_no_value_is():
    x = np.random.default_rng(0).exponential(size=500)
    assert column_cells(x).least == 0.0
    assert column_cells(x - 1).least == -np.inf
