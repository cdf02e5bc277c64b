"""Types of columns are detected, and restored in frames of the same library."""

import datetime
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from ebflow.sklearn import FlowDetector
from ebflow.tables import Columns, Detector
from ebflow.tables.detect import detect_columns

N = 400


@pytest.fixture(scope="module")
def table():
    """A column of every kind, in pandas' types."""
    rng = np.random.default_rng(0)
    moments = pd.Timestamp("2020-01-01", tz="Europe/Berlin")
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(days=int(k)) for k in range(N)]
    frame = pd.DataFrame(
        {
            "real": rng.normal(size=N),
            "single": rng.normal(size=N).astype("float32"),
            "tenths": np.round(rng.normal(size=N), 1),
            "count": rng.integers(0, 9, N),
            "small": rng.integers(0, 9, N).astype("int8"),
            "yes": rng.random(N) < 0.3,
            "maybe": pd.array([True, False, None, True] * (N // 4), dtype="boolean"),
            "lacking": pd.array([1, 2, None, 3] * (N // 4), dtype="Int64"),
            "cut": rng.choice(["Ideal", "Good", None], N),
            "size": pd.Categorical(rng.choice(["S", "M"], N), ["S", "M", "XL"], ordered=True),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, N), "D"),
            "at": moments + pd.to_timedelta(rng.integers(0, 9_000_000, N), "s"),
            "lasts": pd.to_timedelta(rng.integers(0, 1000, N), "s"),
            "iso": [str(day) for day in rng.permutation(days)],
            "clock": [f"{day}T08:{k % 60:02d}:00Z" for k, day in enumerate(days)],
            "words": [f"{value:.2f}" for value in rng.normal(size=N)],
        }
    )
    return frame.assign(seven=7, double=2 * frame["count"] + 1, rest=0.5 * frame["tenths"] - 3)


LIBRARIES = {
    "pandas": lambda frame: frame,
    "pyarrow dtypes": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda frame: pl.from_pandas(frame),
    "arrow": lambda frame: pa.Table.from_pandas(
        frame, preserve_index=False
    ).replace_schema_metadata(),
    "dict": lambda frame: {name: frame[name].to_numpy() for name in ("real", "count", "yes")},
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_frame_comes_back_with_its_types_and_values(table, library):
    frame = LIBRARIES[library](table)
    columns = detect_columns(frame)
    numbers = columns.encode(frame)
    assert numbers.shape == (N, columns.width) and numbers.dtype == np.float64
    back = columns.decode(numbers)
    if library == "dict":
        for name, values in frame.items():
            assert back[name].dtype == values.dtype
            np.testing.assert_array_equal(back[name], values)
    elif library in ("polars", "arrow"):
        assert [str(kind) for kind in _types(back)] == [str(kind) for kind in _types(frame)]
        pd.testing.assert_frame_equal(back.to_pandas(), frame.to_pandas())
    else:
        pd.testing.assert_frame_equal(back, frame)


def _types(frame):
    return frame.schema.types if isinstance(frame, pa.Table) else frame.dtypes


def test_what_is_done_to_each_column_is_printed(table):
    rare = ["a"] * 300 + ["b"] * 90 + [f"rare {k}" for k in range(10)]
    columns = detect_columns(table.assign(id=range(1, N + 1), level=rare))
    lines = dict(line.split("  ", 1) for line in str(columns).splitlines())
    treatments = {name: rest.strip().split("  ")[-1].strip() for name, rest in lines.items()}
    assert treatments["real"] == "number"
    assert treatments["cut"].startswith("category, 2 levels, ")
    assert treatments["size"] == "ordered category, 2 levels"
    assert treatments["level"] == "category, 3 levels (10 rare ones grouped)"
    assert treatments["iso"] == "time in days since 1970"
    assert treatments["clock"] == "time in seconds since 1970"
    assert treatments["seven"] == "dropped: always 7"
    assert treatments["id"] == "dropped: identifier, its values are ignored"
    assert treatments["double"] == "dropped: equals 2 count + 1"
    assert treatments["tenths"] == "dropped: equals 2 rest + 6"  # it has the wider range


def test_a_column_that_is_constant_or_missing_says_so():
    columns = detect_columns(
        {"a": [0.5, 1.0, 2.5], "b": [3.0, np.nan, 3.0], "c": ["u", None, None]}
    )
    assert columns[1].describe() == "dropped: 3, or missing in 1 row"
    assert columns[2].describe() == "dropped: 'u', or missing in 2 rows"


def test_names_that_are_numbers_come_back():
    frame = pd.DataFrame({0: [0.5, 1.0, 2.5], "b": [1.5, 1.0, 0.2], 7: [1, 1, 1]})
    columns = detect_columns(frame)
    restored = Columns.from_dict(json.loads(json.dumps(columns.to_dict())))
    for each in (columns, restored):
        assert each.decode(each.encode(frame)).columns.tolist() == [0, "b", 7]


def test_columns_go_through_json(table):
    columns = detect_columns(table)
    columns = Columns(columns, columns.library, detect_columns(table, ["cut"], context=True))
    assert Columns.from_dict(json.loads(json.dumps(columns.to_dict()))) == columns


def test_batches_give_the_columns_of_the_whole(table):
    detector = Detector()
    for start in range(0, N, 90):
        detector.update(table[start : start + 90])
    found, expected = detector.finish(), detect_columns(table)
    for one, two in zip(found, expected, strict=True):
        assert one.describe() == two.describe() and one.levels == two.levels


def test_rare_levels_are_sampled_by_their_frequency():
    level = ["a"] * 500 + ["b"] * 490 + ["c"] * 4 + ["d"] * 2
    columns = detect_columns({"level": np.array(level), "x": np.arange(996.0) % 7})
    assert columns[0].levels == ("a", "b") and columns[0].rare == {"c": 4, "d": 2}
    drawn = columns.decode(np.tile([2.0, 0.0], (3000, 1)))["level"]
    assert set(drawn) == {"c", "d"}
    assert np.mean(drawn == "c") == pytest.approx(2 / 3, abs=4.5 * np.sqrt(2 / 9 / 3000))
    unseen = columns.encode({"level": ["zebra", None, "c"], "x": [0, 1, 2]})
    np.testing.assert_array_equal(unseen[:, 0], [3, np.nan, 2])  # an unknown level is not rare
    assert columns[0].text_of(2.0) == "(other)" and columns[0].text_of(3.0) == "(a new level)"


def test_an_unseen_level_has_a_code_of_its_own_and_is_no_context():
    frame = {"level": ["u", "v"] * 50, "x": np.arange(100.0) % 7}
    columns = detect_columns(frame)
    numbers = columns.encode({"level": ["w", "v"], "x": [0.0, 1.0]})
    np.testing.assert_array_equal(numbers, [[2, 0], [1, 1]])
    np.testing.assert_array_equal(columns.one_hot(numbers[1:]), [[0, 1, 1]])
    with pytest.raises(ValueError, match="row 0, column 'level': found an unknown level"):
        columns.one_hot(numbers)
    assert len(columns.elements) == 3


def test_no_category_has_more_than_256_levels():
    rng = np.random.default_rng(0)
    columns = detect_columns({"name": [f"n{k}" for k in rng.geometric(0.004, 20_000)]})
    assert columns[0].size == 256 and len(columns[0].levels) == 255


def test_identifiers_go_on_in_samples():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"row": rng.permutation(100) + 1, "x": rng.normal(size=100)})
    frame["key"] = [f"{k:08x}" for k in rng.integers(0, 2**32, 100)]
    columns = detect_columns(frame[:80])
    assert [c.dropped for c in columns] == ["identifier", "", "identifier"]
    back = columns.decode(np.zeros((2, 1)))
    assert back["row"].tolist() == [101, 102] and back["row"].dtype == np.int64
    assert back["key"].isna().all() and back["key"].dtype == frame["key"].dtype
    assert detect_columns({"year": np.arange(1950, 2010)}).width == 1
    some = detect_columns({"row": rng.choice(54_000, 800, replace=False), "x": np.arange(800) % 7})
    assert [c.dropped for c in some] == ["identifier", ""]


@pytest.mark.parametrize(("start", "dropped"), [(1, "identifier"), (100_001, "identifier"),
                                                (1900, "")])  # fmt: skip
def test_identifiers_start_near_zero_or_at_large_numbers(start, dropped):
    """Numbers between, such as years, may mean something."""
    numbers = np.random.default_rng(0).permutation(start + np.arange(500))
    assert detect_columns({"id": numbers, "x": np.random.default_rng(1).normal(size=500)})[0] \
        .dropped == dropped  # fmt: skip


def test_an_identifier_that_predicts_a_column_is_modelled():
    time, noise = np.arange(1000.0), np.random.default_rng(0).normal(size=(2, 1000))
    columns = detect_columns(
        {"t": time, "b": 0.01 * time + noise[0], "c": noise[1], "k": time + 1}
    )
    assert [c.dropped for c in columns] == ["", "", "", "linear"]


@pytest.mark.parametrize(("form", "treatment"), [
    ("%d/%m/%Y", "time in days since 1970"),
    ("%m/%d/%Y", "time in days since 1970"),
    ("%d.%m.%Y %H:%M", "time in seconds since 1970"),
    ("%Y/%m/%dT%H:%M:%SZ", "time in seconds since 1970"),
    ("%H:%M", "time in seconds"),
])  # fmt: skip
def test_dates_and_times_of_usual_forms_come_back(form, treatment):
    texts = pd.date_range("2019", periods=60, freq="187h").strftime(form).to_numpy(object)
    columns = detect_columns({"when": texts})
    assert columns[0].describe() == treatment
    columns = Columns.from_dict(json.loads(json.dumps(columns.to_dict())))
    assert columns.decode(columns.encode({"when": texts}))["when"].tolist() == texts.tolist()
    assert len(columns.decode(np.empty((0, 1)))["when"]) == 0


def test_text_of_rare_levels_is_no_date_and_no_constant():
    """Of days and months whose order is not known."""
    texts = [f"{k % 12 + 1:02}/{k % 11 + 1:02}/2020" for k in range(400)]
    found = detect_columns({"a": texts})[0].describe()
    assert found == "dropped: text of 132 rare values, which are ignored"


def test_new_values_of_ignored_text_decide_nothing():
    """An order has one or a few rows, so a new order is no surprise."""
    rng = np.random.default_rng(0)
    orders = [f"A{k:04}" for k in rng.integers(0, 400, 500)]
    frame = pd.DataFrame({"order": orders, "x": rng.normal(size=500)})
    columns = detect_columns(frame[:400])
    assert columns.features == ["x"]
    assert columns.exceptions(frame[400:]) == []
    assert set(columns.decode(np.zeros((50, 1)))["order"]) <= set(orders[:400])
    detector = FlowDetector(alpha=0.01).fit(frame[:400])
    unusual = detector.predict(frame[400:].assign(order="new")) < 0
    assert unusual.mean() < 0.1


@pytest.mark.parametrize("bad", ["2015-02-30", "unknown", "03/02/2019"])
def test_a_text_among_dates_is_an_error_with_its_row(bad):
    dates = pd.date_range("2019", periods=300).strftime("%Y-%m-%d").tolist()
    texts = np.array([*dates[:7], bad, *dates[7:]], object)
    message = f"column 'when', row 7: found '{bad}', expected a date as YYYY-MM-DD, as all but 1"
    with pytest.raises(ValueError, match=message):
        detect_columns({"when": texts})
    as_category = pd.DataFrame({"when": pd.Categorical(texts)})
    assert detect_columns(as_category)[0].dropped == "identifier"


def test_frequent_words_beside_dates_are_levels():
    dates = pd.date_range("2019", periods=300).strftime("%Y-%m-%d").tolist()
    texts = np.array([*dates, *["unknown"] * 100], object)
    assert detect_columns({"when": texts})[0].kind == "category"


def test_samples_have_the_linear_function_of_their_rounded_values():
    wage = np.random.default_rng(0).uniform(3, 30, 200).round(2)
    columns = detect_columns({"wage": wage, "month": (160 * wage).round(1), "age": wage**2})
    assert columns[1].dropped == "linear"
    found = columns.decode(np.array([[4.1073, 3.0], [20.0049, 9.0]]))
    np.testing.assert_allclose(found["month"], 160 * found["wage"], atol=1e-6)


def test_a_linear_function_needs_every_row():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 500))
    total = x + 2 * y
    assert detect_columns({"x": x, "y": y, "total": total}).width == 2
    other = total.copy()
    other[7] += 0.01
    assert detect_columns({"x": x, "y": y, "total": other}).width == 3
    lacking = np.where(np.arange(500) == 7, np.nan, 1.0)
    frame = {"x": x, "y": y, "z": rng.normal(size=500) * lacking, "total": other}
    assert detect_columns(frame).width == 4  # in a row that is not complete
    assert detect_columns({name: values[:8] for name, values in frame.items()}).width == 4


def test_a_linear_function_fills_in_a_missing_term():
    x, y = np.random.default_rng(0).normal(size=(2, 100))
    columns = detect_columns({"x": x, "y": y, "total": x + 2 * y})
    found = columns.encode({"x": [1.0, np.nan], "y": [np.nan, np.nan], "total": [5.0, 3.0]})
    np.testing.assert_allclose(found, [[1, 2], [np.nan, np.nan]])


def test_restored_indicators_stay_zeros_and_ones():
    rng = np.random.default_rng(0)
    frame = pd.get_dummies(pd.Series(rng.choice(list("abc"), 300)), dtype=int)
    columns = detect_columns(frame)
    assert columns[2].dropped == "linear"
    assert columns.decode(np.array([[1.0, 1.0], [0.0, 0.0]]))["c"].tolist() == [0, 1]


def test_columns_are_found_by_name_and_arrays_by_position():
    frame = {"a": np.arange(9.0) ** 2, "b": np.arange(9.0) ** 3}
    columns = detect_columns(frame)
    expected = np.stack([frame["a"], frame["b"]], 1)
    other = {"c": np.zeros(9), "b": frame["b"], "a": frame["a"]}
    for same in (other, pl.DataFrame(other), expected):
        np.testing.assert_array_equal(columns.encode(same), expected)
    with pytest.raises(ValueError, match="x: found no column b, expected all of a, b"):
        columns.encode({"a": [1.0]})
    with pytest.raises(ValueError, match="x: found 3 columns, expected 2: a, b"):
        columns.encode(np.zeros((1, 3)))
    hint = r".* A Series is one column; frame.iloc\[\[0\]\] is a row"
    with pytest.raises(ValueError, match="x: found 1 column, expected 2: a, b" + hint):
        columns.encode(pd.DataFrame(frame).iloc[0])
    with pytest.raises(ValueError, match="x: found no column a, b" + hint):
        columns.encode(pd.DataFrame(frame).iloc[1])


def test_the_value_next_to_a_bound_at_0_is_written_as_0():
    column = detect_columns({"a": [0.5, 3.25, 1.75] * 9})[0]
    assert [column.text_of(n) for n in (torch.finfo(torch.float32).tiny, 1e-9)] == ["0", "1e-09"]


@pytest.mark.parametrize("value", [2, 0.5, "2"])
def test_a_boolean_is_true_false_or_missing(value):
    columns = detect_columns({"flag": [True, False] * 9, "a": np.arange(18.0) ** 2})
    rows = {"flag": ["1", "False", None, "true", "0"], "a": [0.0] * 5}
    np.testing.assert_array_equal(columns.encode(rows)[:, 0], [1, 0, np.nan, 1, 0])
    rows["flag"] = np.array([1, 0, value])
    with pytest.raises(ValueError, match=f"x, column 'flag', row 2: found {value}, expected true"):
        columns.encode(rows | {"a": [0.0] * 3})


@pytest.mark.parametrize(("values", "error", "line"), [
    ([2**53 + 1, 1], ValueError, r"column 'a', row 0: found 900719925474099\d, .*2\^53"),
    (pd.Series([None, 2**60], dtype="Int64"), ValueError, r"'a', row 1: found 11529.*2\^53"),
    ([[1], [2]], TypeError, "column 'a': found .*, expected numbers, text, categories"),
    (pd.Series([[1], [2]]), TypeError, "column 'a': found list, expected numbers, text"),
    (pd.Series([np.ones(2)] * 2), TypeError, "column 'a': found arrays, expected numbers, text"),
    ([1j, 2j], TypeError, "column 'a': found complex128, expected"),
    (np.array([1j, "u"], object), TypeError, "column 'a': found complex and str, expected num"),
    ([*map(str, range(0, 900, 3)), "forty"], ValueError,
        "column 'a', row 300: found 'forty' among num"),
])  # fmt: skip
def test_what_is_no_column_is_named(values, error, line):
    with pytest.raises(error, match=line):
        detect_columns(
            {"a": values} if not isinstance(values, pd.Series) else values.to_frame("a")
        )


def test_numbers_in_a_later_batch_of_text_are_levels():
    detector = Detector(["a"])
    for batch in (["u", "v"], [1, 2]):
        detector.update({"a": batch * 10})
    assert detector.finish()[0].levels == ("1", "2", "u", "v")


@pytest.mark.parametrize(("known", "value", "line"), [
    ([1.5, 2.0, 3.0], "forty", "x, column 'a', row 5: found 'forty', expected a number; corr"),
    (["2020-01-01", "2020-01-03"], "soon", "row 5: found 'soon', expected a date or a time"),
    *(([1.5, 2.0, 3.0], text, f"row 5: found '{text}', expected a number; correct")
      for text in ("1_000", "nan", "inf", "-Infinity", "0012", "0x1")),
    ([True, False, True], "1_0", "row 5: found '1_0', expected a number"),
    ([1.5, 2.0], np.datetime64("2020-01-01"), "found times, expected numbers"),
])  # fmt: skip
def test_a_value_of_another_kind_is_named(known, value, line):
    columns = detect_columns({"a": known})
    with pytest.raises(ValueError, match=line):
        columns.encode({"a": np.array([value])}, first=5)


@pytest.mark.parametrize("text", [" 7", "+7.", "7e0", ".7e1", "7.0"])
def test_every_form_of_a_number_in_training_rows_is_one_in_new_rows(text):
    texts = np.array([text, "1", "2.5"])
    for known in ({"a": [1.5, 2.0, 3.0]}, {"a": texts}):
        assert detect_columns(known).encode({"a": texts})[:, 0].tolist() == [7, 1, 2.5]


def test_texts_of_numbers_with_leading_zeros_are_no_numbers():
    codes = [f"{k % 9:03d}" for k in range(300)]
    columns = detect_columns({"code": codes})
    assert columns[0].kind == "category"
    assert columns.decode(columns.encode({"code": codes}))["code"].tolist() == codes
    with pytest.raises(ValueError, match="x, column 'code': found numbers, expected text with"):
        columns.encode({"code": [1, 2]})
    assert np.isnan(columns.encode({"code": [np.nan]})).all()


def test_no_frame_library_is_imported():
    code = (
        "import sys; from ebflow.tables import detect_columns\n"
        "columns = detect_columns({'a': [1.5, 2.0], 'b': ['u', 'v']})\n"
        "columns.decode(columns.encode({'a': [1.0], 'b': ['u']}))\n"
        "print(sorted({'pandas', 'polars', 'pyarrow', 'pydantic'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


@pytest.mark.parametrize(
    ("word", "rows", "refused"),
    [("5+", 15, False), ("forty", 1, True), ("007", 3, False), ("?", 15, True), ("", 3, True)],
)
def test_frequent_words_and_codes_among_numbers_are_levels(word, rows, refused):
    """Rare words, and texts without a letter or a digit, are mistakes."""
    texts = np.array([str(k % 4 + 1) for k in range(1_000)], object)
    texts[100 : 100 + rows] = word
    if refused:
        found = re.escape(f"column 'a', row 100: found {word!r} among")
        with pytest.raises(ValueError, match=found):
            detect_columns({"a": texts})
    else:
        assert detect_columns({"a": texts})[0].kind == "category"


def test_a_word_among_many_numbers_is_no_level():
    texts = np.array([*map(str, range(1_000))], object)
    texts[::100] = "none"
    with pytest.raises(ValueError, match="row 0: found 'none' among numbers"):
        detect_columns({"a": texts})


def test_many_different_words_among_numbers_are_codes():
    """Diagnoses by ICD-9 are numbers but for some that start with V or E."""
    texts = np.array([str(k % 300) for k in range(5_000)], object)
    texts[::100] = [f"V{k}" for k in range(50)]
    assert detect_columns({"a": texts})[0].kind == "category"


@pytest.mark.parametrize("column", [
    pd.array(["u", None, "v"] * 10, dtype="string"),
    pa.array(["u", None, "v"] * 10).dictionary_encode(),
    pa.DictionaryArray.from_arrays(pa.array([0, None, 1] * 10, pa.uint32()), ["u", "v"]),
])  # fmt: skip
def test_missing_texts_and_levels_of_any_type_are_read(column):
    frame = (
        pa.table({"a": column}) if isinstance(column, pa.Array) else pd.DataFrame({"a": column})
    )
    columns = detect_columns(frame)
    assert columns[0].missing == 10
    assert np.array_equal(columns.encode(frame)[:3, 0], [0, np.nan, 1], equal_nan=True)
    assert columns.decode(np.array([[0.0], [1.0]])) is not None


def test_a_column_of_rare_levels_alone_contradicts_no_row():
    table = {"a": np.arange(100.0) ** 1.5, "s": [f"level {k // 3}" for k in range(100)]}
    columns = detect_columns(table)
    assert columns[1].rare and columns[1].is_ignored
    assert columns.exceptions(table) == []
