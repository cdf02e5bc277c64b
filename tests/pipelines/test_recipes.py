"""``ebflow.fit`` and ``ebflow run density`` choose the same settings for the same data."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ebflow
from ebflow import recipes
from ebflow.errors import BadInput
from pipelines.cli.run import density
from pipelines.config import DataConfig
from pipelines.config.recipes import for_source, mnist9k_dense
from tuning.command import density as tune

NOISE = np.random.default_rng(0)
DATA = {
    "5 columns": NOISE.normal(size=(40, 5)),
    "65 columns": NOISE.normal(size=(40, 65)),
    "200 columns": NOISE.normal(size=(40, 200)),
    "one column": NOISE.normal(size=(40, 1)),
    "float images": NOISE.normal(size=(40, 1, 6, 6)),
    "large float images": NOISE.normal(size=(9, 1, 33, 33)),
    "8-bit images": NOISE.integers(256, size=(40, 1, 6, 6), dtype="uint8"),
    "large 8-bit images": NOISE.integers(256, size=(9, 1, 33, 33), dtype="uint8"),
}


def settings(config):
    """Returns what both sides say of a training."""
    model, front, train = config.model, config.preprocess, config.train
    options = model.model_dump(exclude={"architecture", "base"}, exclude_none=True)
    return {
        "architecture": model.architecture, "base": model.base,
        "options": recipes.completed(model.architecture, options), "normalize": front.normalize,
        "shrinkage": front.shrinkage, "columns": front.grids and front.tails,
        "gaussianize": front.gaussianize, "lr": train.lr, "weight_decay": train.weight_decay,
        "smoothing": train.smoothing, "warmup": train.warmup, "batch_size": train.batch_size,
    }  # fmt: skip


def agree(x, given, source, monkeypatch, seconds=None, **options):
    """Asserts that a fit and the command line follow one recipe, and that the fit does it."""
    followed = []

    def spied(*arguments, **options):
        followed.append(recipes.recipe(*arguments, **options))
        return followed[-1]

    monkeypatch.setattr(ebflow.fitting, "recipe", spied)
    flow = ebflow.fit(x, given, steps=1, patience=None, progress=False, max_seconds=seconds)
    recipe = followed[0]
    config, name = for_source(DataConfig(source=str(source), **options), seconds=seconds)
    fields = set(settings(config))
    assert recipe.name == name and flow.spec["architecture"] == recipe.architecture
    assert settings(config) == {field: getattr(recipe, field) for field in fields}
    for option, value in flow.spec["options"].items():
        if option == "categories":  # from the preprocessing of the rows
            continue
        assert recipe.options.get(option, value) == value
    return name


@pytest.mark.parametrize("name", DATA)
def test_fit_and_the_command_line_agree(name, tmp_path, monkeypatch):
    np.save(tmp_path / "data.npy", DATA[name])
    agree(DATA[name], None, tmp_path / "data.npy", monkeypatch)


def test_they_agree_on_a_short_training(tmp_path, monkeypatch):
    np.save(tmp_path / "data.npy", rows := NOISE.normal(size=(6000, 3)))
    agree(rows, None, tmp_path / "data.npy", monkeypatch, seconds=10.0)


@pytest.mark.parametrize(
    ("seconds", "rows", "columns", "normalize"),
    [("10", 6000, 19, "cholesky"), ("11", 6000, 19, "auto"), ("10", 4999, 19, "auto"),
     ("10", 6000, 20, "auto")],
)  # fmt: skip
def test_columns_of_short_trainings_are_whitened(seconds, rows, columns, normalize, tmp_path):
    np.save(tmp_path / "data.npy", NOISE.normal(size=(rows, columns)))
    words = ("--data.source", str(tmp_path / "data.npy"), "--train.max-seconds", seconds)
    assert density(words).run.config.preprocess.normalize == normalize


def test_they_agree_on_one_column_given_others(tmp_path, monkeypatch):
    table = dict(zip("yab", NOISE.normal(size=(3, 40)), strict=True))
    pq.write_table(pa.table(table), tmp_path / "table.parquet")
    context = np.stack([table["a"], table["b"]], 1)
    source = tmp_path / "table.parquet"
    name = agree(table["y"][:, None], context, source, monkeypatch, context=("a", "b"))
    assert name == "tabular"


@pytest.mark.parametrize(
    ("rows", "columns", "words", "rival"),
    [(40, 19, (), "wide"), (6000, 19, (), None), (6000, 20, (), "wide"),
     (6000, 20, ("--model.bins", "16"), None), (40, 19, ("--objective.name", "dsm"), None)],
)  # fmt: skip
def test_few_rows_or_many_columns_get_a_rival(rows, columns, words, rival, tmp_path):
    np.save(tmp_path / "data.npy", NOISE.normal(size=(rows, columns)))
    words = ("--data.source", str(tmp_path / "data.npy"), *words)
    assert density(words).run.config.rival == rival
    assert tune(words).run.config.base.rival is None
    (tmp_path / "config.yaml").write_text("rival: wide")
    assert tune((*words, "--config", str(tmp_path / "config.yaml"))).run.config.base.rival is None
    with pytest.raises(BadInput, match="--rival: found wide, expected none in a search"):
        tune((*words, "--rival", "wide"))


def test_score_matching_of_a_table_gets_dense_layers(tmp_path):
    np.save(tmp_path / "data.npy", DATA["5 columns"])
    data = DataConfig(source=str(tmp_path / "data.npy"))
    assert for_source(data, "dsm")[0].model.architecture == "dense"


@pytest.mark.parametrize(("objective", "architecture"), [("dsm", None), (None, "glow")])
def test_images_without_exact_pixels_get_the_settings_of_convolutions(
    objective, architecture, tmp_path
):
    np.save(tmp_path / "data.npy", DATA["8-bit images"])
    data = DataConfig(source=str(tmp_path / "data.npy"))
    assert for_source(data)[0].model.architecture == "pixelcnn"
    config, _ = for_source(data, objective, architecture)
    assert config.model.architecture == "convolutional" and config.name == "data"
    assert config.preprocess.normalize == "standardize" and config.train.lr == 1e-2


@pytest.mark.parametrize("stem", ["digits", "tabular"])
def test_a_file_that_is_called_like_a_recipe_gets_that_for_its_rows(stem, tmp_path):
    np.save(tmp_path / f"{stem}.npy", DATA["5 columns"])
    config, name = for_source(DataConfig(source=str(tmp_path / f"{stem}.npy")))
    assert (config.name, name) == (stem, "tabular")


def test_dense_layers_of_mnist_have_their_own_batches():
    train = mnist9k_dense().train
    assert (train.batch_size, train.steps) == (100, 20_000)


@pytest.mark.parametrize("others", [0, 1, 70])
def test_they_agree_on_a_table_with_a_category(others, tmp_path, monkeypatch):
    table = {f"x{k}": column for k, column in enumerate(NOISE.normal(size=(others, 40)))}
    table = pa.table({**table, "kind": ["u", "v"] * 20})
    pq.write_table(table, tmp_path / "table.parquet")
    assert agree(table, None, tmp_path / "table.parquet", monkeypatch) == "tabular"
