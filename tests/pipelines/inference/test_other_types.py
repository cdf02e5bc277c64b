"""Sources whose types differ from those of the training rows, by an untrained flow of them."""

import datetime as dt
import math

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

import ebflow as library
from ebflow.tables import detect_columns
from pipelines.inference.reference import Reference

X = [0.5, -0.25, 1.0, 0.75] * 30
DAYS = [dt.date(2020, 1, 1 + k % 20) for k in range(120)]
NUMBERS = pa.array([0.5 + (k % 9) ** 2 for k in range(120)])
IMPUTE = ["impute", "--samples", 1, "--sweeps", 1]


def untrained(folder, values):
    """Returns the folder of an untrained flow of a table, and of its rows to compare with."""
    table = pa.table({"x": X, "c": values})
    columns = detect_columns(table)
    flow = library.architectures.dense((columns.width,), depth=1)
    flow.columns = columns
    library.save(flow, folder / "model")
    rows = torch.from_numpy(columns.encode(table)).float()
    nats = flow.log_prob(rows).detach().double().sort().values
    Reference(nats, nats, rows, rows[:, :0]).save(folder / "model", folder / "model")
    return folder / "model"


def written(ebflow, command, model, source):
    """Runs a command that ends well; returns the table that it wrote."""
    output = model.parent / "out.parquet"
    result = ebflow(*command[:1], model, source, "--output", output, *command[1:])
    assert (result.code, result.err) == (0, []), result
    return pq.read_table(output)


@pytest.mark.parametrize(("source", "output"), [["new/a.parquet"] * 2, ["new", "new/b.csv"]])
@pytest.mark.parametrize("words", ["score model", "detect model", "sample model --context"])
def test_an_output_is_no_part_of_the_source(ebflow, tmp_path, monkeypatch, source, output, words):
    monkeypatch.chdir(tmp_path)
    untrained(tmp_path, X[::-1])
    (tmp_path / "new").mkdir()
    pq.write_table(pa.table({"x": X}), "new/a.parquet")
    result = ebflow(*words.split(), source, "--output", output)
    assert f"--output: found {output} in {source}, expected another" in result.refusal


@pytest.mark.parametrize("constant", [None, 7, DAYS[0]])
@pytest.mark.parametrize("value", ["many", DAYS[1]])
def test_another_value_of_a_constant_is_impossible(ebflow, tmp_path, constant, value):
    model = untrained(tmp_path, pa.array([constant] * 120, None if constant else pa.float64()))
    pq.write_table(pa.table({"x": [0.5, 1.0], "c": [value, None]}), tmp_path / "new.parquet")
    found = written(ebflow, ["score"], model, tmp_path / "new.parquet")["log_prob"].to_pylist()
    assert found[0] == -math.inf and math.isfinite(found[1])
    assert 0 in written(ebflow, ["detect"], model, tmp_path / "new.parquet")["row"].to_pylist()


@pytest.mark.parametrize(("trained", "value", "expected"), [
    (["01", "A1"] * 60, "01", "01"), (["True", "unknown"] * 60, "True", "True"),
    (["2020-01-01", "never"] * 60, "2020-01-01", "2020-01-01"), (["1", "A"] * 60, 7, "7"),
    (NUMBERS, "1.25", 1.25), (NUMBERS, 7, 7.0), (NUMBERS.cast("int64", safe=False), 2.25, 2.25),
    (NUMBERS.cast(pa.string()), 1.255, "1.255"), (DAYS, "2020-01-02", DAYS[1]),
    ([f"{day:%d/%m/%Y}" for day in DAYS], DAYS[1], "02/01/2020"), ([7] * 120, "many", "many"),
    (["u"] * 120, 7, "7"), ([7] * 120, DAYS[0], "2020-01-01 00:00:00"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["new.csv", "new.parquet"])
def test_columns_are_imputed_in_one_type(ebflow, tmp_path, trained, value, expected, name):
    model = untrained(tmp_path, trained)
    new = pa.table({"x": [0.5] * 510, "c": [value] * 250 + [None] * 251 + [value] * 9})
    (pa.csv.write_csv if name.endswith("csv") else pq.write_table)(new, tmp_path / name)
    found = written(ebflow, IMPUTE, model, tmp_path / name)["c"].to_pylist()
    assert found[:250] + found[501:] == [expected] * 259 and any(found[250:501])


def test_rows_of_all_blocks_and_files_have_one_type(ebflow, tmp_path, monkeypatch):
    """If a sample leaves the type of the rows, or a column has no name of its own in all files."""
    monkeypatch.setattr("pipelines.inference.sampling.ROWS", 2)
    model = untrained(tmp_path, pa.array([0, 255] * 60, pa.uint8()))
    (tmp_path / "new").mkdir()
    new = pa.table({"x": [0.5] * 300, "c": pa.array([5, None] * 150, pa.uint8())})
    pq.write_table(new, tmp_path / "new/a.parquet")
    pq.write_table(new.append_column("z", [["z"] * 300]), tmp_path / "new/b.parquet")
    found = written(ebflow, IMPUTE, model, tmp_path / "new")
    assert found["c"].type == pa.int64() and found["c"].to_pylist()[::2] == [5] * 300
    assert found["z"].to_pylist() == [None] * 300 + ["z"] * 300
    assert ebflow("sample", model, "-n", 20, "--output", tmp_path / "s.parquet").code == 0
    assert min(pq.read_table(tmp_path / "s.parquet")["c"].to_pylist()) < 0
    (tmp_path / "two.csv").write_text("x,c,,\n0.5,0,,\n1.5,1,,\n")
    assert len(written(ebflow, ["score"], model, tmp_path / "two.csv")) == 2
    result = ebflow("impute", model, tmp_path / "two.csv", "--output", tmp_path / "s.csv")
    assert "two columns have one name" in result.refusal and not (tmp_path / "s.csv").exists()
