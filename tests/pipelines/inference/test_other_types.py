"""Sources whose types differ from those of the training rows, by an untrained flow of them."""

import datetime as dt
import math

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

import ebflow as library
from ebflow.tables import Columns, detect_columns
from pipelines.inference.reference import Reference

ROWS = {"x": [0.5, -0.25, 1.0, 0.75] * 30}
COMMANDS = [("score",), ("impute", "--samples", 1, "--sweeps", 1)]


def untrained(folder, table, context=None):
    """Returns the folder of an untrained flow of a table, and of these rows to compare with."""
    columns, width = detect_columns(table), 0
    if context is not None:
        contexts = detect_columns(context, context=True)
        columns, width = Columns(columns, "arrow", contexts), len(contexts.elements)
    flow = library.architectures.dense((columns.width,), depth=1, context=width)
    flow.columns = columns
    library.save(flow, folder / "model")
    if context is not None:
        return folder / "model"
    rows = torch.from_numpy(columns.encode(table)).float()
    nats = flow.log_prob(rows).detach().double().sort().values
    Reference(nats, nats, rows, rows[:, :0]).save(folder / "model", folder / "model")
    return folder / "model"


def written(ebflow, command, model, source, *more):
    """Runs a command that ends well; returns the table that it wrote."""
    output = model.parent / "out.parquet"
    result = ebflow(*command[:1], model, source, "--output", output, *command[1:], *more)
    assert (result.code, result.err) == (0, []), result
    return pq.read_table(output)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("values", [
    ("01", "02", "A1"), ("True", "False", "unknown"), ("2020-01-01", "2020-01-02", "never"),
])  # fmt: skip
def test_text_of_the_training_rows_is_text_in_a_csv_file(ebflow, tmp_path, command, values):
    """Also if it looks like a number, a boolean or a date in all rows of this file."""
    model = untrained(tmp_path, pa.table({**ROWS, "c": [*values, values[0]] * 30}))
    new = pa.table({"x": pa.array([0.5, None, 1.0]), "c": [values[0], values[1], values[0]]})
    pa.csv.write_csv(new, tmp_path / "new.csv", pa.csv.WriteOptions(quoting_style="none"))
    pq.write_table(new, tmp_path / "new.parquet")
    found, expected = (
        written(ebflow, command, model, tmp_path / f"new.{end}") for end in ("csv", "parquet")
    )
    assert found.equals(expected)


@pytest.mark.parametrize(("source", "output"), [
    ("new/a.parquet", "new/a.parquet"), ("new", "new/a.parquet"), ("new", "new/b.csv"),
    ("new", "link.parquet"), ("link.parquet", "new/a.parquet"),
])  # fmt: skip
def test_an_output_is_no_part_of_the_source(ebflow, tmp_path, monkeypatch, source, output):
    monkeypatch.chdir(tmp_path)
    model = untrained(tmp_path, pa.table({**ROWS, "g": ["u", "v"] * 60}))
    (tmp_path / "new").mkdir()
    pq.write_table(pa.table(ROWS), "new/a.parquet")
    (tmp_path / "link.parquet").symlink_to("new/a.parquet")
    for command in (["score", model], ["impute", model], ["detect", model],
                    ["sample", model, "--context"]):  # fmt: skip
        result = ebflow(*command, source, "--output", output)
        assert f"--output: found {output} in {source}, expected another" in result.refusal
    assert pq.read_table("new/a.parquet").equals(pa.table(ROWS))


@pytest.mark.parametrize("constant", [None, 7, dt.date(2020, 1, 1)])
@pytest.mark.parametrize("value", ["many", dt.date(2021, 1, 1)])
def test_another_value_of_a_constant_is_impossible_whatever_its_type_is(
    ebflow, tmp_path, constant, value
):
    constants = pa.array([constant] * 120, None if constant else pa.float64())
    model = untrained(tmp_path, pa.table({**ROWS, "c": constants}))
    pq.write_table(pa.table({"x": [0.5, 1.0], "c": [value, None]}), tmp_path / "new.parquet")
    found = written(ebflow, ["score"], model, tmp_path / "new.parquet")["log_prob"].to_pylist()
    assert found[0] == -math.inf and math.isfinite(found[1])
    assert 0 in written(ebflow, ["detect"], model, tmp_path / "new.parquet")["row"].to_pylist()


def test_a_file_of_contexts_gives_a_sample_for_each_row(ebflow, tmp_path, monkeypatch):
    """Also for one row, and if its name contains the sign between names and values."""
    monkeypatch.chdir(tmp_path)
    groups = pa.table({"g": ["u", "v"] * 60})
    model = untrained(tmp_path, pa.table({**ROWS, "y": [1.5, 2.5] * 60}), groups)
    for rows in (1, 3):
        pq.write_table(groups[:rows], "g=u.parquet")
        result = ebflow("sample", model, "--output", "s.parquet", "--context", "g=u.parquet")
        assert (result.code, result.err) == (0, []), result
        assert pq.read_table("s.parquet")["g"].to_pylist() == ["u", "v", "u"][:rows]
    (tmp_path / "none.csv").write_text("g\n")
    result = ebflow("sample", model, "--output", "none.parquet", "--context", "none.csv")
    assert "none.csv: found 0 rows, expected some" in result.refusal
    assert not (tmp_path / "none.parquet").exists()


DAYS = [dt.date(2020, 1, 1 + k % 20) for k in range(120)]
NUMBERS = pa.array([0.5 + (k % 9) ** 2 for k in range(120)])


@pytest.mark.parametrize(("trained", "new", "expected"), [
    (NUMBERS, ["1.25", None], 1.25),
    (NUMBERS, pa.array([7, None]), 7.0),
    (NUMBERS.cast(pa.int64(), safe=False), [2.25, None], 2.25),
    (DAYS, ["2020-01-02", None], DAYS[1]),
    ([f"{day:%d/%m/%Y}" for day in DAYS], [DAYS[1], None], "02/01/2020"),
    (["1", "2", "A1"] * 40, [7, None], "7"),
    ([f"{number:.2f}" for number in NUMBERS.to_pylist()], [1.255, None], "1.255"),
    ([7] * 120, ["many", None], "many"),
    (["u"] * 120, [7, None], "7"),
    ([7] * 120, [DAYS[0], None], "2020-01-01 00:00:00"),
])  # fmt: skip
def test_columns_of_another_kind_are_imputed_in_one_type(ebflow, tmp_path, trained, new, expected):
    """In blocks with and without missing values, and in blocks without other ones."""
    model = untrained(tmp_path, pa.table({**ROWS, "c": trained}))
    column = pa.concat_arrays([pa.array(new)[k : k + 1] for k in [0] * 250 + [1] * 251 + [0] * 9])
    pq.write_table(pa.table({"x": [0.5] * 510, "c": column}), tmp_path / "new.parquet")
    found = written(ebflow, COMMANDS[1], model, tmp_path / "new.parquet")["c"].to_pylist()
    assert found[:250] + found[501:] == [expected] * 259 and any(found[250:501])


def test_rows_of_all_blocks_and_files_have_one_type(ebflow, tmp_path, monkeypatch):
    """If a sample leaves the type of the rows, and if the second file has one more column."""
    monkeypatch.setattr("pipelines.inference.sampling.ROWS", 2)
    small = pa.array([0, 255] * 60, pa.uint8())
    model = untrained(tmp_path, pa.table({**ROWS, "c": small}))
    (tmp_path / "new").mkdir()
    new = pa.table({"x": [0.5] * 300, "c": pa.array([5, None] * 150, pa.uint8())})
    pq.write_table(new, tmp_path / "new/a.parquet")
    pq.write_table(new.append_column("z", [["z"] * 300]), tmp_path / "new/b.parquet")
    found = written(ebflow, COMMANDS[1], model, tmp_path / "new")
    assert found["c"].type == pa.int64() and found["c"].to_pylist()[::2] == [5] * 300
    assert found["z"].to_pylist() == [None] * 300 + ["z"] * 300
    output = tmp_path / "samples.parquet"
    assert ebflow("sample", model, "-n", 20, "--output", output).code == 0
    column = pq.read_table(output)["c"]
    assert column.type == pa.int64() and min(column.to_pylist()) < 0


def test_a_name_of_two_unused_columns_is_refused_by_impute_alone(ebflow, tmp_path):
    """As of the empty columns that a trailing comma makes."""
    model = untrained(tmp_path, pa.table({**ROWS, "c": ["u"] * 120}))
    (tmp_path / "new.csv").write_text("x,c,,\n0.5,u,,\n1.5,v,,\n")
    assert len(written(ebflow, ["score"], model, tmp_path / "new.csv")) == 2
    words = ("impute", model, tmp_path / "new.csv", "--output", tmp_path / "imputed.csv")
    assert "new.csv, column '': found 2 of this name, expected one" in ebflow(*words).refusal
    assert not (tmp_path / "imputed.csv").exists()
