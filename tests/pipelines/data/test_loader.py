import itertools
import weakref

import numpy as np
import pyarrow as pa
import pytest
import torch

from ebflow.errors import BadInput
from pipelines.data import dataset as stored
from pipelines.data.dataset import Dataset
from tests.prepared import prepare

from .parquet import lists, write

ROWS, WIDTH = 1000, 3
ROW_BYTES = WIDTH * 4 + 8


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """1000 rows, 800 of them for training in 27 shards; feature 0 is the row number."""
    folder = tmp_path_factory.mktemp("numbered")
    values = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype("float32")
    values[:, 0] = np.arange(ROWS)
    file = write(folder / "in.parquet", {"x": lists(values, "float32")})
    prepare(file, folder / "out", shard_rows=30)
    return Dataset(folder / "out")


@pytest.fixture
def split(dataset):
    return Dataset(dataset.folder).split("train")


# A budget of None holds the split in memory; the others take windows of 3 shards, of 1 shard, and
# windows smaller than a shard.
BUDGETS = {"resident": None, "three": 100 * ROW_BYTES, "one": 30 * ROW_BYTES, "less": 1}


@pytest.fixture(params=BUDGETS.values(), ids=BUDGETS.keys())
def budget(request):
    return {} if request.param is None else {"budget_bytes": request.param}


def take(stream, n):
    return [batch.x for batch in itertools.islice(stream, n)]


def numbers(batches):
    return torch.cat(batches)[:, 0].long().tolist()


def test_split_describes_itself(dataset):
    assert {name: len(dataset.split(name)) for name in dataset.manifest.counts} == {
        "train": 800,
        "validation": 100,
        "test": 100,
    }
    split = dataset.split("test")
    assert (split.shape, split.width, split.dtype) == ((WIDTH,), WIDTH, torch.float32)
    assert split.row_bytes == WIDTH * 4
    assert dataset.split("test") is split


def test_tensor_is_writable_memory_shared_between_calls(split):
    x = split.tensor()
    assert x.shape == (800, WIDTH) and x.is_contiguous() and x.numpy().flags.writeable
    assert split.tensor().data_ptr() == x.data_ptr()


def test_tensor_over_budget(split):
    with pytest.raises(BadInput, match=r"split train: found 9600 bytes, expected at most 9599"):
        split.tensor(budget_bytes=9599)


@pytest.mark.parametrize("size", [1, 7, 30, 64, 799, 800, 5000])
def test_batches_in_order(size, dataset):
    fresh = Dataset(dataset.folder).split("train")
    streamed = [batch.x for batch in fresh.batches(size)]
    assert {len(batch) for batch in streamed[:-1]} <= {size}
    assert 1 <= len(streamed[-1]) <= size
    assert torch.equal(torch.cat(streamed), fresh.tensor())
    assert all(map(torch.equal, streamed, (batch.x for batch in fresh.batches(size))))


def test_batches_own_their_memory(split):
    first, second = take(split.batches(30), 2)
    kept = first.clone()
    second.zero_()
    assert torch.equal(first, kept)


@pytest.mark.parametrize("size", [7, 64, 100, 800])
def test_an_epoch_visits_rows_once_and_drops_the_rest(size, split, budget):
    steps = len(split) // size
    stream = split.shuffled(size, seed=0, **budget)
    epochs = [numbers(take(stream, steps)) for _ in range(3)]
    everything = set(split.tensor()[:, 0].long().tolist())
    for rows in epochs:
        assert len(set(rows)) == len(rows) == steps * size
        assert set(rows) <= everything
    assert epochs[0] != epochs[1] != epochs[2]


def test_rows_are_whole(split, budget):
    x = {int(row[0]): row for row in split.tensor()}
    batch = next(split.shuffled(800, seed=0, **budget)).x
    assert all(torch.equal(row, x[int(row[0])]) for row in batch)


def test_windows_mix_rows(split):
    """In windows of 3 of 27 shards, a batch draws from all shards of its window."""
    order = numbers(take(split.shuffled(10, seed=0, budget_bytes=100 * ROW_BYTES), 9))
    sorted_rows = split.tensor()[:, 0].long().tolist()
    shards_of_batches = [{sorted_rows.index(n) // 30 for n in order[i : i + 10]} for i in (0, 40)]
    assert shards_of_batches[0] == shards_of_batches[1] and len(shards_of_batches[0]) == 3


def test_windows_hold_other_shards_in_every_epoch(split, monkeypatch):
    opened = record_opened(monkeypatch)
    take(split.shuffled(100, seed=0, budget_bytes=100 * ROW_BYTES), 16)
    assert len(opened) == 2 * 27 and opened[:27] != opened[27:]


def test_shuffle_is_uniform(split):
    """Chi-squared of a row's place in the epoch, 8 bins, 300 seeds: false alarm 1e-3."""
    row = int(split.tensor()[123, 0])
    places = [numbers(take(split.shuffled(800, seed=s), 1)).index(row) // 100 for s in range(300)]
    expected = 300 / 8
    chi2 = sum((count - expected) ** 2 / expected for count in np.bincount(places, minlength=8))
    assert chi2 < 24.3


def test_stream_is_a_function_of_the_seed(split, budget):
    one, two, other = (take(split.shuffled(64, seed=s, **budget), 20) for s in (5, 5, 6))
    assert all(map(torch.equal, one, two))
    assert not any(map(torch.equal, one, other))


def test_global_state_is_neither_read_nor_written(split):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = take(split.shuffled(64, seed=5), 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert all(map(torch.equal, one, take(split.shuffled(64, seed=5), 3)))


@pytest.mark.parametrize("size", [7, 64, 100, 800])
def test_resume_is_exact(size, split, budget):
    last = min(40, 4 * (len(split) // size))
    whole = take(split.shuffled(size, seed=3, **budget), last)
    for start in {0, 1, 2, 5, 11, 12, 13, 24, 31} & set(range(last)):
        resumed = take(split.shuffled(size, seed=3, start=start, **budget), last - start)
        assert all(map(torch.equal, resumed, whole[start:])), start


@pytest.mark.parametrize("world", [2, 3, 4])
def test_workers_share_the_global_batch(world, split, budget):
    whole, size = take(split.shuffled(60, seed=3, start=4, **budget), 30), 60 // world
    ranks = [
        take(split.shuffled(60, seed=3, start=4, share=slice(first, first + size), **budget), 30)
        for first in range(0, 60, size)
    ]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert {len(part) for part in parts} == {size}
        assert torch.equal(torch.cat(parts), batch)


def test_resume_opens_only_the_shards_from_there_on(split, monkeypatch):
    opened = record_opened(monkeypatch)
    stream = split.shuffled(100, seed=0, start=7, budget_bytes=100 * ROW_BYTES)
    next(stream)
    assert len(opened) <= 6


def test_windows_are_released_before_the_next_is_read(split, monkeypatch):
    """At most one window of 3 shards is alive whenever a shard is read."""
    alive = []
    read = stored.StoredSplit.read

    def watched(self, window):
        assert not any(reference() is not None for reference in alive)
        block = read(self, window)
        alive.append(weakref.ref(block.x))
        assert len(block.x) <= 100
        return block

    monkeypatch.setattr(stored.StoredSplit, "read", watched)
    take(split.shuffled(64, seed=0, budget_bytes=100 * ROW_BYTES), 30)
    assert len(alive) > 20


def test_resident_split_is_read_once(split, monkeypatch):
    opened = record_opened(monkeypatch)
    take(split.shuffled(64, seed=0), 40)
    take(split.shuffled(64, seed=1, start=9), 40)
    list(split.batches(64))
    assert len(opened) == 27


def test_streaming_holds_one_shard_open_and_little_memory(split, monkeypatch):
    opened = record_opened(monkeypatch)
    before = pa.total_allocated_bytes()
    for number, _ in enumerate(split.batches(10)):
        assert len(opened) <= number * 10 // 30 + 2
        assert pa.total_allocated_bytes() - before < 100_000


def test_each_shard_is_hashed_once(split, monkeypatch):
    hashed = []
    original = stored.sha256
    monkeypatch.setattr(stored, "sha256", lambda path: hashed.append(path) or original(path))
    take(split.shuffled(64, seed=0, budget_bytes=1), 40)
    assert len(hashed) == len(set(hashed)) == 27


def record_opened(monkeypatch):
    opened = []
    original = stored.Dataset._verify
    record = lambda self, shard: opened.append(shard.file) or original(self, shard)  # noqa: E731
    monkeypatch.setattr(stored.Dataset, "_verify", record)
    return opened


@pytest.mark.parametrize(("arguments", "message"), [
    ({"size": 801}, r"batch_size: found 801, expected 1 … 800 \(the rows of split train"),
    ({"size": 0}, r"batch_size: found 0, expected 1 … 800"),
])  # fmt: skip
def test_bad_batch_size_is_refused_before_the_first_batch(arguments, message, split):
    with pytest.raises(BadInput, match=message):
        split.shuffled(**arguments, seed=0)
    with pytest.raises(BadInput, match=r"batch_size: found 0, expected at least 1"):
        split.batches(0)


def test_uint8_and_float64_keep_their_dtype(tmp_path):
    prepare("digits", tmp_path / "digits")
    digits = Dataset(tmp_path / "digits").split("train")
    assert next(digits.shuffled(8, seed=0)).x.dtype == torch.uint8
    file = write(tmp_path / "in.parquet", {"a": np.arange(50.0), "b": np.arange(50.0) ** 2})
    prepare(file, tmp_path / "table")
    assert Dataset(tmp_path / "table").split("test").tensor().dtype == torch.float64
