import hashlib
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn import datasets

from ebflow.errors import BadInput
from ebflow.tables.completion import Completed
from pipelines.data import prepare as stage
from pipelines.data import reader
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.data.splits import SPLITS, Counts, assign, split_counts
from tests.prepared import prepare

from .parquet import images, lists, mnist9k, table, tree, write


def stored(folder, manifest, split):
    """Returns x and row of a split, read without the loader."""
    tables = [pq.read_table(folder / shard.file) for shard in manifest.of(split)]
    whole = pa.concat_tables(tables).combine_chunks()
    x = whole["x"].combine_chunks().flatten().to_numpy()
    return x.reshape(len(whole), manifest.width), whole["row"].to_numpy()


def check_holds(folder, manifest, values):
    """Every row is in exactly one split, in order, with the values it had in the source."""
    seen = []
    for split in SPLITS:
        x, rows = stored(folder, manifest, split)
        assert len(rows) == manifest.counts[split]
        assert (np.diff(rows) > 0).all()
        assert x.dtype == manifest.dtype
        np.testing.assert_array_equal(x, values[rows])
        seen.extend(rows.tolist())
    assert sorted(seen) == list(range(len(values)))


def test_digits(tmp_path):
    manifest = prepare("digits", tmp_path / "out")
    assert manifest.counts == {"train": 1297, "validation": 250, "test": 250}
    assert (manifest.shape, manifest.dtype, manifest.levels) == ((8, 8), "uint8", 17)
    assert manifest.columns is None and manifest.warnings == ()
    check_holds(tmp_path / "out", manifest, datasets.load_digits().data)


@pytest.mark.skipif(mnist9k() is None, reason="mnist9k.parquet is not on this machine")
def test_mnist(tmp_path):
    file = mnist9k()
    manifest = prepare(file, tmp_path / "out", validation=1000, test=1000)
    assert manifest.counts == {"train": 7000, "validation": 1000, "test": 1000}
    assert (manifest.shape, manifest.levels, manifest.name) == ((1, 28, 28), 256, "mnist9k")
    values = pq.read_table(file)["image"].combine_chunks().flatten().to_numpy()
    check_holds(tmp_path / "out", manifest, values.reshape(9000, 784))


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "iris", "wine"])
def test_sklearn_frames_as_they_are(name, tmp_path):
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    frame.to_parquet(tmp_path / f"{name}.parquet")
    manifest = prepare(tmp_path / f"{name}.parquet", tmp_path / "out")
    assert manifest.columns.names == list(frame.columns)
    assert (manifest.dtype, manifest.levels, manifest.name) == ("float64", None, name)
    check_holds(tmp_path / "out", manifest, frame.to_numpy(dtype=np.float64))


def test_columns_without_a_density_of_their_own_are_left_out_and_described(tmp_path):
    x = np.random.default_rng(0).normal(size=100)
    columns = {"id": np.arange(100), "x": x, "y": 2 * x + 1, "c": np.full(100, 3)}
    manifest = prepare(write(tmp_path / "in.parquet", columns), tmp_path / "out")
    assert manifest.shape == (1,) and manifest.columns.names == ["id", "x", "y", "c"]
    assert manifest.warnings == (
        "column id: dropped: identifier, its values are ignored",
        "column y: dropped: equals 2 x + 1",
        "column c: dropped: always 3",
    )


def test_pandas_index_is_left_out_with_a_warning(tmp_path):
    frame = datasets.load_wine(as_frame=True).frame.drop(columns="target").sample(100)
    frame.to_parquet(tmp_path / "wine.parquet")
    manifest = prepare(tmp_path / "wine.parquet", tmp_path / "out")
    assert manifest.columns.names == list(frame.columns)
    assert manifest.warnings[0].startswith("column __index_level_0__ is the index of a pandas")


def test_chosen_columns_in_the_chosen_order(tmp_path):
    data = table().append_column("name", pa.array(["x"] * 60))
    file = write(tmp_path / "in.parquet", data)
    manifest = prepare(file, tmp_path / "out", columns=["c", "a"])
    assert manifest.columns.names == ["c", "a"]
    values = np.stack([data["c"], data["a"]], axis=1)
    check_holds(tmp_path / "out", manifest, values)


def test_image_column_wins_and_scalars_beside_it_are_ignored(tmp_path):
    values = images()
    columns = {"label": ["x"] * 60, "other": lists(values[:, :2]), "image": lists(values)}
    file = write(tmp_path / "in.parquet", columns, {"shape": "[2, 3]", "levels": "256"})
    manifest = prepare(file, tmp_path / "out")
    assert manifest.source["column"] == "image" and manifest.shape == (2, 3)
    check_holds(tmp_path / "out", manifest, values)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_continuous_lists(dtype, tmp_path):
    values = np.random.default_rng(0).normal(size=(60, 6)).astype(dtype)
    values[:, 3] = 1.5
    file = write(tmp_path / "in.parquet", {"x": lists(values, dtype)})
    manifest = prepare(file, tmp_path / "out")
    assert (manifest.dtype, manifest.levels) == (dtype, None)
    check_holds(tmp_path / "out", manifest, values)


def test_narrow_columns_stay_float32(tmp_path):
    rng = np.random.default_rng(0)
    columns = {
        "half": rng.normal(size=60).astype("float16"),
        "single": rng.normal(size=60).astype("float32"),
        "short": rng.integers(-9999, 9999, 60, dtype="int16"),
    }
    manifest = prepare(write(tmp_path / "in.parquet", columns), tmp_path / "out")
    assert manifest.dtype == "float32"
    values = np.stack([column.astype("float32") for column in columns.values()], axis=1)
    check_holds(tmp_path / "out", manifest, values)


def test_folder_of_files_is_one_source(tmp_path):
    values = images(150)
    (tmp_path / "in").mkdir()
    for name, part in (("b", values[40:]), ("a", values[:40]), ("_skip", values[:3])):
        write(tmp_path / "in" / f"{name}.parquet", {"x": lists(part)})
    write(tmp_path / "in" / "empty.parquet", {"x": lists(values[:0])})
    manifest = prepare(tmp_path / "in", tmp_path / "out")
    assert [(f["file"], f["rows"]) for f in manifest.source["files"]] == [
        ("a.parquet", 40),
        ("b.parquet", 110),
        ("empty.parquet", 0),
    ]
    check_holds(tmp_path / "out", manifest, values)


def test_shards_are_bounded_in_rows_and_bytes(tmp_path, monkeypatch):
    values = images(1000)
    file = write(tmp_path / "in.parquet", {"x": lists(values)})
    manifest = prepare(file, tmp_path / "out", shard_rows=70)
    assert [shard.rows for shard in manifest.of("train")] == [70] * 11 + [30]
    assert pq.read_metadata(tmp_path / "out" / "train-00000.parquet").num_row_groups == 1
    check_holds(tmp_path / "out", manifest, values)
    monkeypatch.setattr(stage, "SHARD_BYTES", 6 * 50)
    assert prepare(file, tmp_path / "small", shard_rows=70).shards[0].rows == 50


def test_shard_has_zstd_and_the_hash_of_the_manifest(tmp_path):
    manifest = prepare("digits", tmp_path / "out")
    for shard in manifest.shards:
        content = (tmp_path / "out" / shard.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard.sha256
        assert len(content) == shard.bytes
        file = pq.ParquetFile(tmp_path / "out" / shard.file)
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_manifest_on_disk_is_its_digest_and_loads_equal(tmp_path):
    manifest = prepare("digits", tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_bytes()
    assert hashlib.sha256(text).hexdigest() == manifest.digest
    again = Manifest.load(tmp_path / "out")
    digest = Dataset(tmp_path / "out").digest
    assert again == manifest and again.digest == digest == manifest.digest


def test_same_seed_same_bytes_wherever_the_file_lies(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        file = write(tmp_path / name / "in.parquet", table(500))
        prepare(file, tmp_path / name / "out")
    assert tree(tmp_path / "one" / "out") == tree(tmp_path / "two" / "out")


def test_other_seed_other_splits(tmp_path):
    rows = [
        stored(tmp_path / str(seed), prepare("digits", tmp_path / str(seed), seed=seed), "test")[1]
        for seed in (0, 1)
    ]
    assert len(np.intersect1d(*rows)) < 100


def test_splits_do_not_depend_on_batches(tmp_path, monkeypatch):
    file = write(tmp_path / "in.parquet", table(500))
    first = prepare(file, tmp_path / "one")
    monkeypatch.setattr(reader, "BATCH_BYTES", 24 * 7)
    second = prepare(file, tmp_path / "two")
    for split in SPLITS:
        for one, two in zip(
            stored(tmp_path / "one", first, split),
            stored(tmp_path / "two", second, split),
            strict=True,
        ):
            np.testing.assert_array_equal(one, two)


ALL = Counts(200, 0, 0)


def test_test_split_is_kept_and_training_nested_when_counts_change():
    sizes = dict(label="x", test=20)
    none = np.zeros(200, np.int8)
    large = assign(none, split_counts(ALL, validation=30, **sizes), 3)
    small = assign(none, split_counts(ALL, validation=30, rows=90, **sizes), 3)
    assert ((large == 2) == (small == 2)).all() and ((large == 1) == (small == 1)).all()
    assert (large[small == 0] == 0).all()
    assert [(small == code).sum() for code in (0, 1, 2, -1)] == [40, 30, 20, 110]


def test_assignment_is_fixed_for_good():
    counts = split_counts(Counts(12, 0, 0), label="x", validation=0.25, test=2)
    found = assign(np.zeros(12, np.int8), counts, 0)
    assert found.tolist() == [0, 1, 0, 1, 0, 0, 2, 1, 0, 0, 0, 2]


NAMED = Counts(7, 3, 2)
CODES = np.repeat(np.arange(3, dtype=np.int8), NAMED[:3])


def test_splits_that_a_source_fixes_do_not_depend_on_the_seed():
    counts = split_counts(NAMED, label="x", validation=3, test=2)
    for seed in (0, 1):
        assert assign(CODES, counts, seed).tolist() == [0] * 7 + [1] * 3 + [2] * 2


def test_part_of_fixed_splits_is_drawn_within_each():
    counts = split_counts(NAMED, label="x", validation=2, test=1, rows=6)
    assert counts == Counts(3, 2, 1)
    drawn = [assign(CODES, counts, seed) for seed in range(30)]
    for codes in drawn:
        for code, (first, last) in enumerate(((0, 7), (7, 10), (10, 12))):
            assert (codes == code).sum() == (3, 2, 1)[code]
            assert set(codes[first:last]) <= {code, -1}
    assert len({codes.tobytes() for codes in drawn}) > 20
    assert split_counts(NAMED, label="x", validation=1, test=1) == Counts(7, 1, 1)


def test_rows_for_selection_are_taken_from_the_training_rows_alone():
    sizes = dict(label="x", test=20, validation=30)
    none = np.zeros(200, np.int8)
    without = assign(none, split_counts(ALL, **sizes), 3)
    counts = split_counts(ALL, selection=0.1, **sizes)
    assert counts == Counts(130, 30, 20, 20) and counts.splits[-1] == "selection"
    codes = assign(none, counts, 3)
    for code in (1, 2):
        assert ((codes == code) == (without == code)).all()
    assert (codes == 3).sum() == 20 and (without[codes == 3] == 0).all()


def test_rows_for_selection_leave_fixed_splits_as_they_are():
    counts = split_counts(NAMED, label="x", validation=3, test=2, selection=2)
    for seed in (0, 1):
        codes = assign(CODES, counts, seed)
        assert codes.tolist()[7:] == [1] * 3 + [2] * 2
        assert sorted(codes.tolist()[:7]) == [0] * 5 + [3] * 2
    with pytest.raises(BadInput, match="found 8 rows wanted for train, expected at most 7"):
        split_counts(NAMED, label="x", validation=1, test=1, selection=6, rows=10)
    with pytest.raises(BadInput, match="at least 13: 1 for validation, 9 for selection, 1 for"):
        split_counts(Counts(12, 0, 0), label="x", validation=1, test=1, selection=9)


def test_a_selection_split_is_prepared_and_listed(tmp_path):
    manifest = prepare("digits", tmp_path / "out", selection=100)
    assert manifest.counts["selection"] == 100
    assert len(stored(tmp_path / "out", manifest, "selection")[1]) == 100
    assert "selection" not in prepare("digits", tmp_path / "without").counts


def test_rows_draws_that_many(tmp_path):
    manifest = prepare("digits", tmp_path / "out", rows=900, validation=0.1, test=0.2)
    assert manifest.counts == {"train": 630, "validation": 90, "test": 180}
    _, rows = stored(tmp_path / "out", manifest, "train")
    assert rows.max() > 1500


def test_statistics_agree_with_numpy(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5000, 3)) * [1e-3, 1, 1e3] + [1e4, 0, -1e6]
    file = write(tmp_path / "in.parquet", {name: values[:, j] for j, name in enumerate("abc")})
    monkeypatch.setattr(reader, "BATCH_BYTES", 24 * 333)
    manifest = prepare(file, tmp_path / "out")
    x, _ = stored(tmp_path / "out", manifest, "train")
    assert manifest.statistics.min == tuple(x.min(axis=0))
    assert manifest.statistics.max == tuple(x.max(axis=0))
    np.testing.assert_allclose(manifest.statistics.mean, x.mean(axis=0), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(manifest.statistics.std, x.std(axis=0), rtol=1e-9)


def test_statistics_of_images_are_of_the_training_split_only(tmp_path):
    manifest = prepare("digits", tmp_path / "out")
    x, _ = stored(tmp_path / "out", manifest, "train")
    np.testing.assert_allclose(manifest.statistics.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(manifest.statistics.std, x.std(axis=0), rtol=1e-12)


def floats_in_one_row_group(path):
    values = np.random.default_rng(0).normal(size=(200_000, 30))
    return write(path, {"x": lists(values, "float64")}, row_group_size=1 << 30)


def floats_in_small_row_groups(path):
    rng = np.random.default_rng(0)
    columns = {f"c{j}": rng.normal(size=200_000) for j in range(30)}
    return write(path, columns, row_group_size=1000)


@pytest.mark.system
@pytest.mark.parametrize("make", [floats_in_one_row_group, floats_in_small_row_groups])
def test_memory_is_bounded_by_the_batch(make, tmp_path, monkeypatch):
    """48 MB pass through less than 16 MB."""
    file = make(tmp_path / "in.parquet")
    monkeypatch.setattr(reader, "BATCH_BYTES", 1 << 20)
    monkeypatch.setattr(stage, "SHARD_BYTES", 1 << 20)
    peak = PeakMemory(monkeypatch)
    prepare(file, tmp_path / "out", shard_rows=20_000)
    assert peak.stop() < 16e6


class PeakMemory:
    """The most bytes that numpy and Arrow held at once since it was made."""

    def __init__(self, monkeypatch):
        self.before = pa.total_allocated_bytes()
        self.arrow = 0
        original = stage.ShardWriter.append

        def watched(*arguments):
            self.arrow = max(self.arrow, pa.total_allocated_bytes() - self.before)
            original(*arguments)

        monkeypatch.setattr(stage.ShardWriter, "append", watched)
        tracemalloc.start()

    def stop(self):
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak + self.arrow


def lacking(path, rows=400):
    """A table of which some rows lack an entry; returns the file and which do."""
    data = table(rows).to_pandas()
    gone = np.random.default_rng(1).random(data.shape) < 0.05
    return write(path / "in.parquet", pa.Table.from_pandas(data.mask(gone))), gone.any(1)


def test_rows_that_lack_an_entry_are_dropped_and_told(tmp_path):
    file, gone = lacking(tmp_path)
    found = prepare(file, tmp_path / "out", missing="drop")
    assert sum(found.counts.values()) == (~gone).sum() and not found.incomplete
    assert f"{gone.sum()} of 400 rows have missing values and are dropped" in found.warnings
    dataset = Dataset(tmp_path / "out")
    assert all(dataset.split(name).tensor().isfinite().all() for name in found.counts)


def test_rows_that_lack_an_entry_are_kept_but_for_testing(tmp_path):
    file, gone = lacking(tmp_path)
    found = prepare(file, tmp_path / "out", missing="impute")
    whole = prepare(write(tmp_path / "whole.parquet", table(400)), tmp_path / "whole")
    assert {**found.counts, "test": 40} == whole.counts
    left_out = gone.sum() - sum(found.incomplete.values())
    assert found.counts["test"] == 40 - left_out < 40
    expected = f"{gone.sum()} of 400 rows have missing values, which are imputed in training"
    assert found.warnings[-1].startswith(expected)
    dataset = Dataset(tmp_path / "out")
    train, test = dataset.split("train"), dataset.split("test")
    assert isinstance(train, Completed) and not isinstance(test, Completed)
    assert train.missing.any(1).sum() == found.incomplete["train"]
    assert train.tensor().isfinite().all() and test.tensor().isfinite().all()
    again = Dataset(tmp_path / "out").split("train")
    assert torch.equal(again.tensor(), train.tensor())
    raw = np.where(train.missing, np.nan, train.tensor())
    np.testing.assert_allclose(found.statistics.mean, np.nanmean(raw, 0))
    np.testing.assert_allclose(found.statistics.std, np.nanstd(raw, 0))
    np.testing.assert_array_equal(found.statistics.max, np.nanmax(raw, 0))


def test_loader_reads_what_prepare_wrote(tmp_path):
    manifest = prepare("digits", tmp_path / "out")
    for split in SPLITS:
        x, _ = stored(tmp_path / "out", manifest, split)
        np.testing.assert_array_equal(Dataset(tmp_path / "out").split(split).tensor().numpy(), x)
