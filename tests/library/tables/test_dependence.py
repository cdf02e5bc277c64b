from dataclasses import replace

import numpy as np

from ebflow.tables import Column, Detector
from ebflow.tables.detect import detect_columns


def test_columns_that_nearly_depend_on_others_divide_no_later_ones():
    """Outliers make columns depend on four up to rounding, though the other rows do not."""
    random = np.random.default_rng(2)
    heavy = random.standard_cauchy((400, 4)) ** 3
    x = heavy @ random.normal(size=(4, 60)) + random.normal(size=(400, 60))
    columns = detect_columns({f"x{k}": x[:, k] for k in range(60)})
    assert not any(column.dropped for column in columns)


def test_exact_functions_are_found_beside_large_offsets_in_any_batches():
    random = np.random.default_rng(0)
    x = np.round(random.normal(size=5_000), 2)
    start = np.datetime64("2020-01-01T00:00:07", "us") + random.integers(0, 10**12, 5_000)
    frame = {"x": x + 1e6, "rare": (np.arange(5_000) == 4_321).astype(int), "start": start}
    frame |= {"rest": 1 - frame["rare"], "end": start + np.timedelta64(90, "s"), "y": 3 * x}
    detector = Detector()
    for first in range(0, 5_000, 700):
        detector.update({name: values[first : first + 700] for name, values in frame.items()})
    for columns in (detector.finish(), detect_columns(frame)):
        treatments = {c.name: c.describe() for c in columns if c.dropped}
        assert treatments == {
            "rest": "dropped: equals - rare + 1",
            "end": "dropped: equals start + 90",
            "y": "dropped: equals 3 x - 3e+06",
        }


def test_dropped_columns_do_not_hide_later_ones():
    """A dropped column leaves a row of rounding errors in the factor, with parts of later ones."""
    random = np.random.default_rng(3)
    a, b, c = random.normal(size=(3, 1_000))
    frame = {"a": a, "a2": 2 * a + 1, "b": b, "ab": a + b, "a3": 3 * a, "c": c}
    frame["abc"] = a - 3 * b + c
    treatments = {c.name: c.describe() for c in detect_columns(frame) if c.dropped}
    assert treatments == {
        "a2": "dropped: equals 2 a + 1",
        "ab": "dropped: equals a + b",
        "a3": "dropped: equals 3 a",
        "abc": "dropped: equals a - 3 b + c",
    }


def test_a_column_that_is_constant_in_complete_rows_explains_no_other():
    random = np.random.default_rng(0)
    placed = np.arange(200) % 3 > 0
    salary = np.where(placed, np.round(random.normal(size=200), 1), np.nan)
    frame = {"placed": placed, "salary": salary, "twice": 2 * salary}
    treatments = {c.name: c.describe() for c in detect_columns(frame) if c.dropped}
    assert treatments == {"twice": "dropped: equals 2 salary"}


def test_differences_count_by_the_sizes_of_the_column_and_its_terms():
    tiny = Column(
        "c", "number", "float64", low=0.0, high=5e-15, dropped="linear", terms={"a": 2.0}
    )
    values = {"a": np.array([1e-15, 1e-15]), "c": np.array([2e-15, 3e-15])}
    assert tiny.against(values)[0].tolist() == [False, True]
    a, b = 1e9 + np.random.default_rng(0).random((2, 1000))
    difference = replace(tiny, low=-1e-9, high=1e-9, terms={"a": 1.0, "b": -1.0})
    sums = {"a": a, "b": b, "c": a - b + np.spacing(1e9)}
    assert not difference.against(sums)[0].any()
