"""Scores: right, and the same however they are computed."""

import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import ebflow as library
from ebflow.errors import BadInput
from ebflow.evaluation import log_probs
from ebflow.tables import Column, Columns
from ebflow.tables.batches import Batch
from pipelines.data import files
from pipelines.data.dataset import Dataset
from pipelines.data.sources import find_source
from pipelines.inference import REFERENCE
from pipelines.inference.models import load
from pipelines.inference.reference import Reference, p_values, ranks
from pipelines.inference.rows import most_tasks, scores
from pipelines.inference.tables import batches, match
from pipelines.reporting import terminal as shown_on

from ..conftest import Store
from ..nodes import Cluster
from ..processes import PATIENCE_S
from .conftest import grouped, people

COLUMNS = ["log_prob", "log_prob_error", "rank", "p_value", "p_value_test"]


def scored(ebflow, model, data, output, *more):
    """Runs the command; returns the table of scores."""
    ebflow("score", model, data, "--output", output, *more).quiet()
    return pq.read_table(output)


@pytest.fixture
def expected(ebflow, model, people_file, tmp_path):
    return scored(ebflow, model, people_file, tmp_path / "expected.parquet")


def test_scores_are_the_flows_log_densities(expected, model, people_file):
    flow = library.load(model)
    x = torch.from_numpy(next(find_source(people_file).reader().batches()).x)
    nats = log_probs(flow, x)
    assert expected["log_prob"].to_numpy() == pytest.approx(nats.numpy(), abs=1e-9)
    assert expected.column_names == COLUMNS


def test_progress_is_printed_outside_a_terminal(ebflow, model, people_file, tmp_path, monkeypatch):
    monkeypatch.setattr(shown_on, "LINE_S", -1.0)
    result = ebflow("score", model, people_file, "--output", tmp_path / "scores.parquet")
    count = pq.read_metadata(people_file).num_rows
    assert "rows: started" in result.out
    assert any(re.fullmatch(rf"rows: +\d+%  {count:,} of {count:,}", line) for line in result.out)


def test_a_rank_counts_training_rows_that_are_as_unlikely(expected, model):
    known = Reference.load(model / "checkpoint").train.numpy()
    nats = expected["log_prob"].to_numpy()
    counted = (known[None] <= nats[:, None]).sum(1)
    np.testing.assert_array_equal(expected["rank"].to_numpy(), counted)
    np.testing.assert_allclose(expected["p_value"].to_numpy(), (1 + counted) / (1 + len(known)))


def test_the_reference_is_of_training_and_test_rows(model):
    dataset = Dataset(model.parent / "data")
    known, flow = Reference.load(model / "checkpoint"), library.load(model)
    for name, rows in (("train", 500), ("test", 400)):
        x = next(dataset.split(name).shuffled(rows, seed=0)).x
        assert getattr(known, name).equal(log_probs(flow, x).sort().values)


def test_a_tie_counts():
    known = torch.tensor([-3.0, -2.0, -2.0, -1.0])
    nats = torch.tensor([-4.0, -2.0, -1.5, 0.0, -torch.inf])
    assert ranks(known, nats).tolist() == [0, 3, 3, 4, 0]
    assert p_values(known, nats).tolist() == [0.2, 0.8, 0.8, 1.0, 0.2]


@pytest.mark.parametrize("level", [0.05, 0.1, 0.5])
def test_p_values_among_test_rows_are_exact(expected, level):
    """1,000 new rows beside 400 test rows, whose share has the larger error: four of both."""
    share = (expected["p_value_test"].to_numpy() <= level).mean()
    assert abs(share - level) < 4 * math.sqrt(level * (1 - level) * (1 / 1000 + 1 / 400))


def test_an_outlier_has_the_least_p_value(ebflow, model, tmp_path):
    odd = people(10, seed=3).to_pandas()
    odd.loc[4, "weight"] = 1e6
    odd.to_parquet(tmp_path / "odd.parquet")
    found = scored(ebflow, model, tmp_path / "odd.parquet", tmp_path / "scores.parquet")
    assert found["rank"][4].as_py() == 0 and found["log_prob"].to_numpy().argmin() == 4


@pytest.mark.parametrize("named", ["model", "conditional"])
def test_columns_are_matched_by_name(ebflow, request, named, tmp_path):
    model = request.getfixturevalue(named)
    file = request.getfixturevalue("people_file" if named == "model" else "grouped_file")
    expected = scored(ebflow, model, file, tmp_path / "expected.parquet")
    rows = pd.read_parquet(file)
    rows.insert(2, "id", "a text")
    rows[rows.columns[::-1]].to_parquet(tmp_path / "turned.parquet")
    result = ebflow(
        "score", model, tmp_path / "turned.parquet", "--output", tmp_path / "s.parquet"
    )
    assert result.code == 0 and "1000 rows; columns not used: id" in result.text
    assert pq.read_table(tmp_path / "s.parquet").equals(expected)
    assert expected.column_names == COLUMNS


@pytest.mark.parametrize("kind", ["category", "str"])
def test_scores_given_a_context_are_the_flows_by_name(ebflow, conditional, tmp_path, kind):
    rows = grouped(300, seed=2).to_pandas().astype({"group": kind})
    rows.to_parquet(tmp_path / "rows.parquet")
    found = scored(ebflow, conditional, tmp_path / "rows.parquet", tmp_path / "s.parquet")
    flow = library.load(conditional)
    for frame in (rows, rows[rows.columns[::-1]].assign(id=1)):
        torch.testing.assert_close(
            torch.tensor(found["log_prob"].to_numpy()), flow.log_prob(frame).double(),
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip
    one_hot = torch.tensor(
        rows["group"].to_numpy()[:, None] == np.array(["heavy", "light", "middle"])
    )
    smoker = torch.tensor(rows["smoker"].to_numpy())[:, None]
    context = torch.cat([one_hot, smoker], 1).double()
    x = torch.tensor(rows[["height", "weight", "count"]].to_numpy())
    assert torch.equal(flow.log_prob(x, context=context), flow.log_prob(rows))


WITHOUT_7 = np.arange(20) != 7


@pytest.mark.parametrize(("named", "change", "message"), [
    ("model", lambda t: t.drop(columns=["weight"]), "found no column weight, expected all column"),
    ("model", lambda t: t.assign(weight="heavy"),
        "column 'weight', row 0: found 'heavy', expected a number"),
    ("model", lambda t: t.assign(weight=t.weight.where(WITHOUT_7, np.inf)),
        "column 'weight', row 7: found inf"),
    ("conditional", lambda t: t.drop(columns=["group"]),
        "found no column group, expected all columns of"),
    ("conditional", lambda t: t.assign(group=t.group.where(WITHOUT_7, "huge")),
        "column 'group', row 7: found 'huge', expected a known level: heavy, lig"),
    ("conditional", lambda t: t.assign(group=t.group.where(WITHOUT_7)),
        "column 'group', row 7: found null, expected a known level"),
    ("conditional", lambda t: t.assign(smoker="yes"),
        "column 'smoker', row 0: found 'yes', expected a number"),
])  # fmt: skip
def test_a_bad_table_is_one_line_and_leaves_nothing(
    ebflow, request, tmp_path, named, change, message
):
    model, file = request.getfixturevalue(named), tmp_path / "bad.parquet"
    change(grouped(20).to_pandas()).to_parquet(file)
    for command in ("score", "impute"):
        result = ebflow(command, model, file, "--output", tmp_path / "s.parquet")
        assert message in result.refusal
        assert result.out == [] or "expected a number" not in message
    if named == "conditional":
        result = ebflow("sample", model, "--context", file, "--output", tmp_path / "s.parquet")
        assert result.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bad.parquet"]


def test_a_csv_file_is_not_parsed_again_for_each_block(ebflow, model, tmp_path, monkeypatch):
    people(1_000, seed=1).to_pandas().to_csv(tmp_path / "new.csv", index=False)
    parse, parsed = files._csv_reader, []
    monkeypatch.setattr(files, "_csv_reader", lambda *a, **k: parsed.append(1) or parse(*a, **k))
    tables, counts = [], []
    for size in (1_000, 1_000, 300):
        monkeypatch.setattr("pipelines.inference.rows.SCORED", size)
        parsed.clear()
        tables.append(scored(ebflow, model, tmp_path / "new.csv", tmp_path / "s.parquet"))
        counts.append(len(parsed))
    assert counts[1] == counts[2] and tables[2].num_rows == 1_000
    np.testing.assert_allclose(tables[1]["log_prob"], tables[2]["log_prob"], rtol=1e-5)


def test_an_interrupted_score_leaves_nothing(ebflow, model, people_file, tmp_path, monkeypatch):
    def interrupted(*where, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.inference.rows.scores", interrupted)
    result = ebflow("score", model, people_file, "--output", tmp_path / "s.parquet")
    assert result.code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["new.parquet"]


def test_units_must_agree(ebflow, tmp_path):
    field = [pa.field("a", pa.float64(), metadata={"unit": "m"}), pa.field("b", pa.float64())]
    flow = library.architectures.dense((2,))
    columns = [Column("a", "number", "double", unit="cm"), Column("b", "number", "double")]
    flow.columns = Columns(columns, "arrow")
    library.save(flow, tmp_path / "flow")
    rows = pa.table([pa.array([1.0]), pa.array([1.0])], schema=pa.schema(field))
    pq.write_table(rows, tmp_path / "rows.parquet")
    result = ebflow("score", tmp_path / "flow", tmp_path / "rows.parquet", "--output", "s.parquet")
    assert "column 'a': found the unit m, expected cm" in result.refusal


@pytest.mark.parametrize(("words", "message"), [
    ("score {model} digits --output s.parquet", "found no column height"),
    ("score none digits --output s.parquet", "MODEL: found 'none', expected the folder"),
    ("score none digits", "MODEL: found 'none', expected the folder"),
    ("score {model} {data}", "--output: found none, expected a file to write"),
    ("score {model} {data} --output s.txt", "--output: found s.txt, expected a file that"),
    ("score {model} {data} --output no/s.parquet", "expected one: make it"),
    ("score {model} {data} --output /proc/s.parquet", "where one may not write"),
    ("score {model} {data} --output s.parquet --workers 0", "--workers: found 0"),
    ("score {model} --output s.parquet", "Missing from ebflow score"),
    ("score models:/none@me {data} --output s.parquet", "found no runs"),
    ("impute {model} {data} --output s.parquet --samples 0",
        "--samples: found 0, expected at least 1"),
    ("impute {model} {data} --output s.parquet --sweeps -1",
        "--sweeps: found -1, expected at least 0"),
    ("impute {images} digits --output s.parquet", "digits: found images, expected a table"),
    ("impute {model} digits --output s.parquet", "digits: found no column height"),
    ("sample {model} --output s.parquet -n 0", "--rows: found 0"),
    ("sample {model} --output s.xls", "--output: found s.xls, expected a"),
    ("sample {model} --output s.parquet --context a=1", "expected none"),
])  # fmt: skip
def test_bad_words_are_one_line(ebflow, home, model, image_model, people_file, words, message):
    filled = words.format(model=model, images=image_model, data=people_file)
    assert message in ebflow(*filled.split()).refusal


@pytest.mark.parametrize("command", ["score", "impute"])
def test_a_ray_that_does_not_start_is_one_line(model, people_file, command, tmp_path):
    words, late = (
        ("--output", "s.parquet", "--workers", 2),
        {"RAY_gcs_server_port_wait_time_s": "0"},
    )
    process = Store(tmp_path).start(command, model, people_file, *words, **late)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and err.count("\n") == 1
    assert err.startswith("ebflow: Ray did not start; is the machine overloaded? RuntimeError: ")
    assert not (tmp_path / "s.parquet").exists()


def test_a_dry_run_writes_nothing(ebflow, home, model, people_file, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = ebflow("score", model, people_file, "--output", tmp_path / "s.parquet", "--dry-run")
    assert result.code == 0 and "1000 rows" in result.text
    assert sorted(tmp_path.rglob("*")) == before


def test_integer_data_have_bits_a_dimension_and_noise_by_row(ebflow, image_model, tmp_path):
    found = scored(ebflow, image_model, "digits", tmp_path / "s.parquet")
    bits, nats = (found[name].to_numpy() for name in ("bits_per_dim", "log_prob"))
    np.testing.assert_allclose(bits, -nats / (64 * math.log(2)))
    named = load(str(image_model))
    rows = next(batches(match("digits", named))).cut(slice(700, 720))
    part = scores(named, 700, rows)
    np.testing.assert_allclose(part["log_prob"].to_numpy(), nats[700:720], rtol=1e-5)
    assert "p_value" not in found.column_names


def test_log_densities_of_other_weights_are_refused(model, image_model, tmp_path):
    other = tmp_path / "other"
    library.save(library.load(image_model), other)
    Reference(*torch.zeros(2, 3), torch.zeros(3, 4), torch.zeros(3, 0)).save(
        other, model / "checkpoint"
    )
    with pytest.raises(BadInput, match="found rows of other weights"):
        Reference.load(other)
    (other / REFERENCE).write_bytes(b"no tensors")
    with pytest.raises(BadInput, match="is corrupt"):
        Reference.load(other)


def test_a_run_can_be_scored(digits, ebflow, tmp_path):
    run = digits.root / "runs" / "density" / "digits"
    found = scored(ebflow, run, "digits", tmp_path / "s.parquet")
    assert found.column_names == [*COLUMNS[:2], "bits_per_dim", *COLUMNS[2:]]
    reference = Reference.load(run / "checkpoint")
    assert len(reference.train) == 1297 and len(reference.test) == 250
    assert float(-reference.test.mean()) == pytest.approx(digits.summary()["test/nll"], abs=1)


@pytest.fixture
def many(model, tmp_path):
    """Rows of two blocks, and what scores them in processes of their own."""
    pq.write_table(people(20_000), tmp_path / "people.parquet", row_group_size=9_000)
    store = Store(tmp_path)
    store.score = ("score", model, "people.parquet", "--output")
    store.run(*store.score, "one.parquet")
    return store


@pytest.mark.slow
def test_tasks_of_ray_give_the_same_bits(many):
    many.run(*many.score, "two.parquet", "--workers", 2)
    assert (many.root / "one.parquet").read_bytes() == (many.root / "two.parquet").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_nodes_give_the_numbers_of_one(model, tmp_path):
    pq.write_table(people(1_000_000), tmp_path / "people.parquet", row_group_size=100_000)
    store, words = Store(tmp_path, patience=1800), ("score", model, "people.parquet", "--output")
    store.run(*words, "one.parquet")
    with Cluster() as cluster, cluster.nodes(1, 1):
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token}
        store.run(*words, "two.parquet", RAY_ADDRESS=f"127.0.0.1:{cluster.port}", **token)
        assert len(cluster.used("block")) == 2
    assert pq.read_metadata(tmp_path / "two.parquet").num_rows == 1_000_000
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@pytest.mark.parametrize("values, tasks", [(10, 100), (1000, 32), (3 * 64 * 64, 2)])
def test_blocks_in_flight_fit_into_memory(values, tasks):
    rows = Batch(torch.empty(16_384, values, dtype=torch.float32, device="meta"), None)
    assert most_tasks(rows) == tasks
