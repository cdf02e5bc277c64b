import numpy as np

from ebflow.tables import Columns


def test_columns_that_nearly_depend_on_others_divide_no_later_ones():
    """Outliers make columns depend on four up to rounding, though the other rows do not."""
    random = np.random.default_rng(2)
    heavy = random.standard_cauchy((400, 4)) ** 3
    x = heavy @ random.normal(size=(4, 60)) + random.normal(size=(400, 60))
    columns = Columns.detect({f"x{k}": x[:, k] for k in range(60)})
    assert not any(column.dropped for column in columns)
