"""Frames that come back from numbers: types, levels and columns of others."""

from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ebflow.tables import detect_columns

SMALL = {
    "pandas": lambda a: pd.DataFrame({"a": a, "b": a, "c": a + a}),
    "nullable": lambda a: pd.DataFrame({"a": a, "b": a, "c": a + a}).astype("UInt8"),
    "polars": lambda a: pl.DataFrame({"a": a, "b": a[::-1], "c": a + a[::-1]}),
    "arrow": lambda a: pa.table({"a": a, "b": a[::-1], "c": a + a[::-1]}),
}


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_a_sum_beyond_its_type_gets_a_wider_one(make):
    values = np.random.default_rng(0).integers(0, 120, 200).astype("uint8")
    columns = detect_columns(make(values))
    numbers = np.full((1, columns.width), 149.0)
    decoded = columns.decode(numbers)
    assert (
        int(decoded["c"][0].as_py() if isinstance(decoded, pa.Table) else decoded["c"][0]) == 298
    )
    assert not columns.exceptions(decoded)[-1][1].any()


def test_an_imputed_level_is_added_to_a_category():
    x = np.arange(40.0)
    columns = detect_columns(pd.DataFrame({"x": x, "g": pd.Categorical(["u", "v"] * 20)}))
    frame = pd.DataFrame({"x": [0.1, 0.2], "g": pd.Categorical(["u", None])})
    filled = columns.fill(frame, np.array([[0.1, 0.0], [0.2, 1.0]]))
    assert filled["g"].tolist() == ["u", "v"] and filled["g"].dtype == "category"


def test_columns_of_others_stay_as_they_are():
    columns = detect_columns({"x": np.random.default_rng(0).normal(size=50)})
    others = {"period": pd.period_range("2020", periods=2, freq="M"), "mixed": [1, "u"],
              "nano": pd.to_datetime(["2020-01-01 00:00:00.123456789"] * 2),
              "wide": [2**60 + 1, 1], "text": ["u", None]}  # fmt: skip
    frame = pd.DataFrame({"x": [1.0, np.nan], **others}, index=[7, 3])
    filled = columns.fill(frame, np.array([[1.0], [2.0]]))
    assert filled["x"].tolist() == [1.0, 2.0] and filled.index.tolist() == [7, 3]
    pd.testing.assert_frame_equal(filled.drop(columns="x"), frame.drop(columns="x"))
    single = columns.fill(frame["x"], np.array([[1.0], [2.0]]))
    assert isinstance(single, pd.Series) and single.tolist() == [1.0, 2.0]
    wide = pl.DataFrame({"x": [None, 1.0], "y": [[1], [2]]})
    assert columns.fill(wide, np.array([[3.0], [1.0]])).to_dict(as_series=False) == {
        "x": [3.0, 1.0], "y": [[1], [2]]}  # fmt: skip
    table = columns.fill(wide.to_arrow(), np.array([[3.0], [1.0]]))
    assert table["x"].to_pylist() == [3.0, 1.0] and table["y"].to_pylist() == [[1], [2]]


def test_missing_text_among_text_stays_missing():
    columns = detect_columns({"b": ["u", np.nan, "v", "u", "v", "u"]})
    assert columns[0].levels == ("u", "v") and columns[0].missing == 1
    mixed = detect_columns([[1.5, "u"], [2.5, None], [0.5, "u"], [4.0, "v"]] * 5)
    assert [c.kind for c in mixed] == ["number", "category"]


def test_an_empty_column_hides_no_linear_function():
    x, y = np.random.default_rng(0).normal(size=(2, 60))
    frame = pd.DataFrame({"x": x, "y": y, "z": x + y, "m": np.nan})
    assert detect_columns(frame)[2].dropped == "linear"


def test_names_of_columns_may_be_booleans():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=[True, False])
    assert list(detect_columns(frame).decode(np.zeros((1, 2)))) == ["True", "False"]


def test_levels_of_other_objects_become_text():
    bins = pd.cut(np.arange(40.0), 4)
    columns = detect_columns(pd.DataFrame({"bin": bins}))
    assert columns[0].levels[0] == "(-0.039, 9.75]"
    assert columns.from_dict(columns.to_dict()).encode(pd.DataFrame({"bin": bins[:1]})) == [[0.0]]


@pytest.mark.parametrize("kind", [pa.decimal64(9, 2), pa.decimal256(50, 2), pa.date32()], ids=str)
def test_decimals_of_any_width_and_categories_of_dates_come_back(kind):
    values = [date(2020, 1, k) if kind == pa.date32() else Decimal(k) / 4 for k in (1, 2, 4)]
    column = pa.array(values * 20).cast(kind)
    column = column.dictionary_encode() if kind == pa.date32() else column
    columns = detect_columns(frame := pa.table({"a": column}))
    back = columns.decode(columns.encode(frame))
    assert back.schema == frame.schema and back["a"].to_pylist() == values * 20
