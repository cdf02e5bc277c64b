"""From the configuration of a model to a flow that trains and comes back from its checkpoint."""

import inspect
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ebflow.architectures import ARCHITECTURES
from ebflow.checkpoint import load
from ebflow.errors import BadInput
from ebflow.randomness import generator
from pipelines.config import (
    Autoregressive,
    Convolutional,
    Coupling,
    Dense,
    Glow,
    PreprocessConfig,
    TrainConfig,
    Training,
)
from pipelines.config.model import MODELS
from pipelines.data.dataset import Dataset
from pipelines.training.checkpoints import save_training
from pipelines.training.flow_training import build_flow
from pipelines.training.preprocessing import baseline, fit_preprocessing
from tests.pipelines.trainers import build
from tests.prepared import prepare

SHORT = TrainConfig(steps=4, batch_size=32, validate_every=2, log_every=2)
IMAGES = {
    "dense": Dense(),
    "convolutions": Convolutional(kernel_size=3, blocks=2),
    "glow": Glow(depth=1, hidden=4, activation="swish"),
    "splines of every pixel": Convolutional(kernel_size=3, activation="spline"),
    "autoregressive": Autoregressive(depth=2, hidden=8, bins=4),
}


def built(model, shape):
    return build_flow(model, shape, generator=generator(0, "weights"), dtype=torch.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare("digits", folder / "digits", rows=300, validation=50, test=50)
    return Dataset(folder / "digits")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    options = {"rows": 300, "validation": 50, "test": 50, "context": ["label"]}
    prepare("digits", folder / "digits", **options)
    return Dataset(folder / "digits")


@pytest.mark.parametrize("given", [False, True], ids=["plain", "of classes"])
@pytest.mark.parametrize("name", IMAGES)
def test_images_train_and_come_back(name, given, dataset, classes, tmp_path):
    dataset = classes if given else dataset
    trainer = build(Training(train=SHORT, model=IMAGES[name]), dataset)
    assert [event.kind for event in trainer.run()][-1] == "validate"
    save_training(trainer, tmp_path / "checkpoint")
    x, context = dataset.split("test").resident
    found = load(tmp_path / "checkpoint").log_prob(x, context=context)
    assert found.shape == (50,)
    torch.testing.assert_close(found, trainer.averaged.log_prob(x, context=context))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_options_of_an_architecture_are_its_arguments(name):
    taken = inspect.signature(ARCHITECTURES[name]).parameters
    assert {*MODELS[name].model_fields} - {"architecture"} <= taken.keys()
    assert MODELS.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 1), (2, 3)])
@pytest.mark.parametrize("options", [{}, {"mixing": "reversal"}, {"bins": 2}])
def test_what_is_said_to_fit_is_built(shape, options):
    model = Autoregressive(**options)
    assert model.fits_every_shape and built(model, shape).event_shape == (math.prod(shape),)


def test_two_elements_have_halves_and_one_has_none():
    model = Coupling(depth=1)
    assert built(model, (2,)).event_shape == (2,)
    assert not model.fits_every_shape
    with pytest.raises(BadInput, match="expected at least two elements"):
        built(model, (1,))


def test_open_options_are_the_recipe_and_set_ones_win():
    assert Dense().options == {"depth": 3, "activation": "spline"}
    leaky = {"activation": "smooth_leaky_relu", "depth": 2, "calibrated": False}
    assert Dense(depth=2, calibrated=False).options == leaky
    assert Dense(residual=True).options["calibrated"]
    normed = Convolutional(spectral_norm=True, residual=True)
    assert "calibrated" not in normed.options and normed.options["kernel_size"] == 3


@pytest.mark.parametrize(
    "shape, event",
    [((28, 28), (1, 28, 28)), ((1, 28, 28), (1, 28, 28)), ((3, 32, 32), (3, 32, 32))],
)
def test_images_are_channels_first(shape, event):
    model = Convolutional(kernel_size=3)
    assert built(model, shape).event_shape == event


BAD = {
    "a bound of splines": (Coupling(bins=4, bound=2.0), (2,),
        "found coupling .*bound: found 2.0, expected None with bins"),
    "rows for images": (Glow(), (64,), "it is for images of shape"),
    "an odd side": (Convolutional(kernel_size=3, blocks=2), (1, 7, 7),
        r"found convolutional for examples of shape \(1, 7, 7\)"),
    "an even kernel": (Convolutional(kernel_size=4), (1, 8, 8),
        "model.architecture: found convolutional"),
}  # fmt: skip


@pytest.mark.parametrize("model, shape, line", BAD.values(), ids=BAD)
def test_what_does_not_fit_is_told(model, shape, line):
    with pytest.raises(BadInput, match=line):
        built(model, shape)


def test_whitening_stands_before_the_reshape(dataset):
    options = PreprocessConfig(normalize="whiten")
    trainer = build(Training(train=SHORT, preprocess=options, model=IMAGES["glow"]), dataset)
    assert trainer.flow.event_shape == (64,)
    assert trainer.flow.core.event_shape == (1, 8, 8)


def test_a_column_without_digits_to_tell_its_rows_apart_is_named(tmp_path):
    normal = np.random.default_rng(0).standard_normal(200)
    far = np.where(np.arange(200) % 10, normal, 1e18 * normal)
    table = pa.table({"far": far, "value": normal[::-1].copy()})
    pq.write_table(table, tmp_path / "far.parquet")
    prepare(tmp_path / "far.parquet", tmp_path / "data")
    data = Dataset(tmp_path / "data")
    for fitting in (
        lambda: fit_preprocessing(Training().preprocess_fit, data),
        lambda: baseline(data, PreprocessConfig()),
    ):
        with pytest.raises(BadInput, match="--train.dtype, column 'far': found float.., which"):
            fitting()
