"""Samples: in the columns and types of the data, and a source again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import ebflow as library
from ebflow.randomness import RowGenerator
from pipelines.data.sources import find_source

from .conftest import NAMES, grouped


def sampled(ebflow, model, output, *more):
    """Runs the command; returns the table of samples."""
    ebflow("sample", model, "--output", output, *more).quiet()
    return pq.read_table(output)


def test_columns_and_types_are_the_sources(ebflow, model, tmp_path):
    found = sampled(ebflow, model, tmp_path / "s.parquet", "-n", 300)
    source = pq.read_schema(model.parent / "people.parquet")
    assert found.num_rows == 300 and found.schema.equals(source)
    reader = find_source(tmp_path / "s.parquet").reader()
    assert reader.layout.columns == NAMES


def test_they_are_the_flows(ebflow, model, tmp_path):
    found = sampled(ebflow, model, tmp_path / "s.parquet", "--rows", 50, "--seed", 4)
    expected = (
        library.load(model)()
        .sample_tensor(50, generator=RowGenerator(4, "sample"))
        .double()
        .numpy()
    )
    np.testing.assert_allclose(found["weight"].to_numpy(), expected[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(found["count"].to_numpy(), expected[:, 2].round())


def test_the_first_rows_are_the_same_however_many_there_are(ebflow, model, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inference.sampling.ROWS", 40)
    few = sampled(ebflow, model, tmp_path / "few.parquet", "-n", 40)
    many = sampled(ebflow, model, tmp_path / "many.parquet", "-n", 100)
    assert many.num_rows == 100 and many.slice(0, 40).equals(few)
    assert not many.slice(40, 40).equals(few)


def test_refined_rows_are_some_of_the_samples(ebflow, model, tmp_path, monkeypatch):
    """They are the same however many there are, and have the sources' columns."""
    monkeypatch.setattr("pipelines.inference.sampling.ROWS", 200)
    few = sampled(ebflow, model, tmp_path / "few.parquet", "-n", 150, "--refine")
    many = sampled(ebflow, model, tmp_path / "many.parquet", "-n", 300, "--refine")
    plain = sampled(ebflow, model, tmp_path / "plain.parquet", "-n", 3000)
    assert many.num_rows == 300 and many.slice(0, 150).equals(few)
    assert many.schema.equals(pq.read_schema(model.parent / "people.parquet"))
    assert not many.equals(plain.slice(0, 300))
    assert {*many["weight"].to_pylist()} < {*plain["weight"].to_pylist()}


def test_a_conditional_flow_cannot_be_refined(ebflow, conditional, tmp_path):
    words = ("--context", "group=light", "smoker=true", "--refine")
    result = ebflow("sample", conditional, "--output", tmp_path / "s.parquet", *words)
    assert "--refine" in result.refusal and "a flow of a table, without contexts" in result.refusal
    assert not [*tmp_path.iterdir()]


def test_a_csv_file_has_the_rows_of_a_parquet_file(ebflow, conditional, tmp_path):
    words = ("-n", 30, "--context", "group=light", "smoker=true", "--output")
    for name in ("s.parquet", "s.csv"):
        ebflow("sample", conditional, *words, tmp_path / name).quiet()
    one, other = pd.read_parquet(tmp_path / "s.parquet"), pd.read_csv(tmp_path / "s.csv")
    pd.testing.assert_frame_equal(one, other, check_dtype=False, check_categorical=False)


def test_a_csv_file_of_images_is_one_line(ebflow, image_model, tmp_path):
    result = ebflow("sample", image_model, "--output", tmp_path / "s.csv")
    assert ".parquet, which can hold lists" in result.refusal and not [*tmp_path.iterdir()]


def test_images_are_lists_of_levels(ebflow, image_model, tmp_path):
    found = sampled(ebflow, image_model, tmp_path / "s.parquet", "-n", 20)
    assert found.column_names == ["image"] and json.loads(found.schema.metadata[b"levels"]) == 17
    reader = find_source(tmp_path / "s.parquet").reader()
    assert (reader.shape, reader.levels) == ((8, 8), 17)
    assert next(find_source(tmp_path / "s.parquet").reader().batches()).x.max() <= 16


def test_a_flow_that_no_pipeline_trained(ebflow, tmp_path):
    flow = library.fit(torch.randn(100, 3), steps=2, progress=False)
    library.save(flow, tmp_path / "flow")
    found = sampled(ebflow, tmp_path / "flow", tmp_path / "s.parquet", "-n", 5)
    assert found.column_names == ["x1", "x2", "x3"]
    words = ("--output", tmp_path / "other.parquet", "--refine")
    assert "which has training rows" in ebflow("sample", tmp_path / "flow", *words).refusal


def test_a_context_without_names_is_refused(ebflow, tmp_path):
    flow = library.architectures.dense((3,), context=2)
    library.save(flow, tmp_path / "flow")
    result = ebflow("sample", tmp_path / "flow", "--output", tmp_path / "s.parquet")
    assert "whose contexts have no names" in result.refusal


def test_a_context_stands_behind(ebflow, conditional, tmp_path):
    words = ("--context", "smoker=1", "group=heavy", "-n", 400)
    found = sampled(ebflow, conditional, tmp_path / "s.parquet", *words)
    assert found.column_names == ["height", "weight", "count", "group", "smoker"]
    assert found["group"].to_pylist() == ["heavy"] * 400 and all(found["smoker"].to_pylist())
    context = torch.tensor([1.0, 0.0, 0.0, 1.0]).expand(400, 4)
    density = library.load(conditional)(context)
    expected = density.sample_tensor((), generator=RowGenerator(0, "sample"))
    np.testing.assert_allclose(found["weight"].to_numpy(), expected[:, 1].double(), rtol=1e-6)


def test_contexts_of_a_file_are_taken_row_by_row(ebflow, conditional, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inference.sampling.ROWS", 40)
    rows = grouped(30, seed=3).select(["smoker", "group"])
    pq.write_table(rows, tmp_path / "given.parquet")
    words = ("--context", tmp_path / "given.parquet")
    one = sampled(ebflow, conditional, tmp_path / "one.parquet", *words)
    assert one.select(["smoker", "group"]).equals(rows)
    pq.write_table(rows[:1], tmp_path / "group=1.parquet")
    of_one = ("--context", tmp_path / "group=1.parquet")
    assert len(sampled(ebflow, conditional, tmp_path / "one.parquet", *of_one)) == 1
    three = sampled(ebflow, conditional, tmp_path / "three.parquet", *words, "-n", 3)
    assert three["group"].to_pylist() == np.repeat(rows["group"].to_numpy(), 3).tolist()
    scores = tmp_path / "scores.parquet"
    score = ebflow("score", conditional, tmp_path / "three.parquet", "--output", scores)
    assert score.code == 0, score


@pytest.mark.parametrize(("words", "message"), [
    ((), "--context: found nothing, expected a file, or name=value of group, smoker"),
    (("group=heavy",), "--context: found group=heavy, expected a file, or name=value of gr"),
    (("group=huge", "smoker=0"), "column 'group', row 0: found 'huge', expected a known level"),
    (("group=heavy", "smoker=yes"),
     "--context, column 'smoker', row 0: found 'yes', expected a num"),
    (("group=heavy", "smoker=nan"),
     "column 'smoker', row 0: found 'nan', expected a number"),
    (("group=heavy", "age=3"), "--context: found group=heavy age=3, expected a file, or nam"),
    (("none.parquet",), "none.parquet: no such file"),
    (("header.csv",), "header.csv: found 0 rows, expected some"),
])  # fmt: skip
def test_what_is_no_context_is_one_line(ebflow, conditional, home, tmp_path, words, message):
    Path("header.csv").write_text("smoker,group\n")
    given = ("--context", *words) if words else ()
    result = ebflow("sample", conditional, "--output", tmp_path / "s.parquet", *given)
    assert message in result.refusal


def test_a_dry_run_writes_nothing(ebflow, model, tmp_path):
    result = ebflow("sample", model, "--output", tmp_path / "s.parquet", "--dry-run")
    assert result.code == 0 and "1000 rows of height, weight" in result.text
    assert not list(tmp_path.iterdir())


def test_samples_are_compared_with_real_rows(ebflow, model, tmp_path):
    """The rows that the flow was trained on come second."""
    rows = model.parent / "people.parquet"
    words = ("--check", rows, rows, "--output", tmp_path / "s.parquet")
    result = ebflow("sample", model, *words).quiet()
    assert pq.read_table(tmp_path / "s.parquet").num_rows == 1_000
    names = [line[:24].strip() for line in result.out[-6:]]
    assert [name.partition(" (")[0] for name in names] == [
        "", "C2ST", "column shapes", "pair trends", "prediction of smoker",
        "nearer to a training row",
    ]  # fmt: skip
    assert result.out[-1].split()[5] == "0.500"  # of equal sets


def test_samples_are_compared_given_the_contexts_of_real_rows(ebflow, conditional):
    rows = conditional.parent / "people.parquet"
    result = ebflow("sample", conditional, "--check", rows, "--rows", 1).quiet()
    assert result.out[-1].startswith("prediction of smoker")


@pytest.mark.parametrize(("words", "message"), [
    ((), "--output: found none"),
    (("--check", "few.parquet"), "found 9 rows"),
    (("--check", "a", "b", "c"), "--check: found 3 sources"),
    (("--check", "enough.parquet", "-n", "9"), "--rows: found 9, expected 20"),
])  # fmt: skip
def test_a_check_needs_rows(ebflow, model, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for name, count in (("few", 9), ("enough", 30)):
        rows = pq.read_table(model.parent / "people.parquet")[:count]
        pq.write_table(rows, f"{name}.parquet")
    result = ebflow("sample", model, *words)
    assert result.code == 2 and message in result.err[0]
