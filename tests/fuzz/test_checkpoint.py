"""Whatever lies in the folder of a checkpoint, it is a flow, a training, or one line."""

import shutil
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ebflow.checkpoint import load
from pipelines.config import PreprocessConfig, TrainConfig, Training
from pipelines.data.dataset import Dataset
from pipelines.training.checkpoints import resume, save_training
from tests.pipelines.data.parquet import images, lists
from tests.pipelines.trainers import build
from tests.prepared import prepare

from .campaign import cases, hunt, refused
from .checkpoints import damaged, states

pytestmark = pytest.mark.timeout(1800)


def make_training(root):
    """Returns a training of some steps on small images, and the files of its checkpoint."""
    pq.write_table(pa.table({"image": lists(images(60, 4))}), root / "images.parquet")
    prepare(root / "images.parquet", root / "data")
    config = Training(
        train=TrainConfig(steps=4, batch_size=8), preprocess=PreprocessConfig(shrinkage=0.1)
    )
    training = build(config, Dataset(root / "data"))
    list(training.run())
    save_training(training, root / "checkpoint")
    return training, {path.name: path.read_bytes() for path in (root / "checkpoint").iterdir()}


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return make_training(tmp_path_factory.mktemp("training"))


def used(training, files, folder):
    """Writes a checkpoint; returns what its uses tell: as a flow, and to go on from."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    messages = []
    for use in (load, partial(resume, training)):
        with refused(str(folder), messages):
            use(str(folder))
    return messages or None


@cases(500)
def test_damaged_checkpoints(count, training, tmp_path):
    trainer, files = training

    def damaged_checkpoint(found):
        return used(trainer, found, tmp_path / "checkpoint")

    hunt(damaged_checkpoint, damaged(files), count)


@cases(500)
def test_states_of_any_values(count, training, tmp_path):
    trainer, files = training

    def states_of_checkpoints(found):
        return used(trainer, found, tmp_path / "checkpoint")

    hunt(states_of_checkpoints, states(files), count)
