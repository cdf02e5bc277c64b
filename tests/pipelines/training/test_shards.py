"""Batches in shards: the same weights, to the bit, by any number of workers (gloo)."""

import datetime
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from ebflow import imputation
from pipelines.config import AnchorConfig, Dense, Dsm
from pipelines.config.recipes import typical
from pipelines.data.dataset import Dataset
from pipelines.training.checkpoints import resume, save_training
from pipelines.training.shards import Shards
from tests.pipelines.trainers import build
from tests.prepared import prepare

WORLDS = (2, 3, 4)
STEPS = {"steps": 9, "validate_every": 5, "log_every": 3, "batch_size": 50, "max_seconds": None}
TRAININGS = {
    "table": ("tabular", {"train": {"clip": 1.0}}),
    "matched, anchored": ("dense", {
        "model": Dense(), "objective": Dsm(), "train": {"clip": 1.0},
        "anchor": AnchorConfig(interval=5, tolerance=1e-3),
    }),
    "images": ("images", {"model": {"spectral_norm": True, "hidden": 4}}),
}  # fmt: skip
TABULAR = ("table", "matched, anchored")


def training_of(name, data, shard, shards):
    """Returns a training that samples missing values again at every fourth step."""
    recipe, changes = TRAININGS[name]
    config = typical(recipe).training.changed(**changes).changed(train=STEPS)
    config = config.changed(cluster={"shards": shards}, stabilise={"latent_mean": 0.0})
    dataset = Dataset(Path(data) / ("table" if name in TABULAR else "digits"))
    return build(config, dataset, shard=shard)


def measured(name, data, folder, shard, shards=4):
    """Trains to a checkpoint at step 5 and to the end; returns what it logs."""
    training, rows = training_of(name, data, shard, shards), []
    for event in training.run():
        rows.append([event.kind, event.step, metrics_of(event)])
        if event.kind == "validate" and event.step == 5:
            save_training(training, f"{folder}/half")
    save_training(training, f"{folder}/end")
    return rows


def metrics_of(event):
    timed = ("time/", "rank_", "train/examples_per_s", "train/latent")
    return {name: value for name, value in event.metrics.items() if not name.startswith(timed)}


def worker(rank, data, folder):
    """Trains as one of two, three and four workers."""
    imputation.RESAMPLE_EVERY = 4
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank < world:
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{folder}/store-{world}", rank=rank,
                world_size=world, timeout=datetime.timedelta(seconds=120),
            )  # fmt: skip
            for name in TRAININGS:
                place = Path(folder) / name / str(world)
                place.mkdir(parents=True, exist_ok=True)
                rows = measured(name, data, place, (rank, world))
                (place / f"{rank}.json").write_text(json.dumps(rows))
            torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Digits, and a table of four columns, of which one has missing values."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    x = random.standard_normal((400, 4)) @ random.standard_normal((4, 4))
    x[::7, 1] = np.nan
    pq.write_table(pa.table({f"x{k}": x[:, k] for k in range(4)}), folder / "x.parquet")
    prepare(folder / "x.parquet", folder / "table", missing="impute")
    prepare("digits", folder / "digits", rows=180, validation=40, test=40)
    return folder


def checkpoint(folder):
    return {
        part: (folder / "end" / f"{part}.safetensors").read_bytes()
        for part in ("model", "ema", "optimizer")
    }


@pytest.mark.system
def test_any_number_of_workers_gives_the_same_bits(
    data, tmp_path, subtests, monkeypatch, single_precision
):
    """All in one test, for the workers are started once."""
    monkeypatch.setattr(imputation, "RESAMPLE_EVERY", 4)
    torch.multiprocessing.spawn(worker, (str(data), str(tmp_path)), nprocs=max(WORLDS))
    for name in TRAININGS:
        alone = tmp_path / name / "1"
        rows = measured(name, data, alone, (0, 1))
        for world in WORLDS:
            place = tmp_path / name / str(world)
            with subtests.test(f"{name}: {world} workers"):
                for rank in range(world):
                    assert json.loads((place / f"{rank}.json").read_text()) == rows
                assert checkpoint(place) == checkpoint(alone)
        with subtests.test(f"{name}: three workers, then one"):
            training = training_of(name, data, (0, 1), 4)
            resume(training, tmp_path / name / "3" / "half")
            list(training.run())
            save_training(training, tmp_path / name / "3, 1" / "end")
            assert checkpoint(tmp_path / name / "3, 1") == checkpoint(alone)
        with subtests.test(f"{name}: the gradient of the whole batch, up to rounding"):
            for row, whole in zip(rows, measured(name, data, tmp_path, (0, 1), 0), strict=True):
                assert whole == [*row[:2], pytest.approx(row[2], rel=0.01, abs=0.01)]


@pytest.mark.parametrize("count", [1, 5, 8])
def test_workers_own_all_shards_and_rows_in_order(count):
    for world in range(1, count + 1):
        each = [Shards(50, count, rank, world) for rank in range(world)]
        assert [k for shards in each for k in shards.own] == [*range(count)]
        assert all(shards.owner(k) == shards.rank for shards in each for k in shards.own)
        places = [shards.rows(shards.own) for shards in each]
        assert [k for rows in places for k in range(50)[rows]] == [*range(50)]
