"""Configurations: reading, writing, precedence, keys."""

import inspect
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tyro
import yaml

from ebflow.errors import BadInput
from ebflow.learned_inverse import LEARNED_INVERSE
from ebflow.objectives import OBJECTIVES as FUNCTIONS
from pipelines.cli.run import RecipeOptions, from_recipe, option_types
from pipelines.config import (
    ClusterConfig,
    DataConfig,
    Dense,
    DensityConfig,
    Dsm,
    FdSsm,
    Likelihood,
    Objective,
    Ssm,
    TrainConfig,
    recipes,
)
from pipelines.config.files import dump, overlaid, read
from pipelines.config.model import Coupling
from pipelines.config.objective import OBJECTIVES
from pipelines.engine.stages import key_of


def parsed(*words):
    """Returns the configuration that options of `ebflow run density` make, and its recipe."""
    kind = RecipeOptions[option_types(recipes.digits())]
    return from_recipe(tyro.cli(kind, args=[str(word) for word in words]))


def load(path, base):
    return overlaid(base, read(path), path)


def changed(config, section, **fields):
    return config.model_copy(update={section: getattr(config, section).model_copy(update=fields)})


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_yaml_round_trip(name, tmp_path):
    config = recipes.RECIPES[name]()
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert load(path, recipes.RECIPES["tabular"]()) == config


def test_what_a_file_leaves_out_comes_from_the_base(tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("train: {lr: 1e-2}\n")
    base = recipes.RECIPES["tabular"]()
    assert load(path, base) == changed(base, "train", lr=1e-2)


def test_options_go_over_the_file_which_goes_over_the_recipe(tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("train: {lr: 0.5, steps: 7}\nseed: 3\n")
    words = ["--recipe", "tabular", "--config", str(path), "--train.steps", "9"]
    config = parsed(*words)[0]
    assert (config.train.lr, config.train.steps, config.seed) == (0.5, 9, 3)
    assert config.preprocess == recipes.RECIPES["tabular"]().preprocess


def test_the_file_of_an_earlier_run_reproduces_its_configuration(tmp_path):
    first = parsed("--train.lr", "0.02", "--evaluate.samples", "3", "--name", "mine")[0]
    path = tmp_path / "config.yaml"
    path.write_text(dump(first))
    assert parsed("--config", path)[0] == first


def test_configurations_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        DensityConfig().train.lr = 1.0


@pytest.mark.parametrize(
    "section, fields", [("cluster", {"max_failures": 7}), ("data", {"source": "elsewhere"})]
)
def test_what_changes_no_number_changes_no_key(section, fields):
    config = DensityConfig()
    assert key_of(changed(config, section, **fields)) == key_of(config)


@pytest.mark.parametrize(
    "section, fields", [("train", {"lr": 2.0}), ("cluster", {"workers": 2}), ("data", {"seed": 1})]
)
def test_what_changes_numbers_changes_the_key(section, fields):
    config = DensityConfig()
    assert key_of(changed(config, section, **fields)) != key_of(config)


def test_differences_in_double_precision_may_have_any_setting():
    train = TrainConfig(dtype="float64", precision="high")
    assert DensityConfig(objective=FdSsm(), train=train).train == train


def test_the_key_does_not_depend_on_how_equal_values_were_made():
    spelled = DensityConfig.model_validate(yaml.safe_load(dump(DensityConfig())))
    assert key_of(spelled) == key_of(DensityConfig())


def test_the_recipe_follows_the_source(tabular_file, image_file):
    assert recipes.for_source(DataConfig()) == (recipes.digits(), "digits")
    assert recipes.for_source(DataConfig(source=str(tabular_file)))[0].preprocess.logit is None
    config, name = recipes.for_source(DataConfig(source=str(image_file)))
    assert config.objective == Likelihood(name="lazy_ml")
    assert (config.name, name) == (image_file.stem, "pixels")
    assert recipes.for_source(DataConfig(source="natural-patches"))[1] == "colour"


def test_sizes_of_a_recipes_splits_are_of_its_own_source_alone(tmp_path):
    own = recipes.mnist9k_dense().data
    words = ["--recipe", "mnist9k_dense"]
    assert parsed(*words)[0].data == own
    there = str(tmp_path / "mnist9k.parquet")
    data = parsed(*words, "--data.source", there)[0].data
    assert data == own.model_copy(update={"source": there})
    data = parsed(*words, "--data.source", "images.parquet")[0].data
    assert data == DataConfig(source="images.parquet")


def test_a_wide_table_starts_as_a_mixture(tmp_path):
    columns = {f"c{k}": [float(row * k) for row in range(5)] for k in range(1, 66)}
    pq.write_table(pa.table(columns), tmp_path / "wide.parquet")
    config, name = recipes.for_source(DataConfig(source=str(tmp_path / "wide.parquet")))
    assert name == "wide" and config.training.preprocess_fit.mixture
    assert not recipes.RECIPES["tabular"]().training.preprocess_fit.mixture


def test_one_column_given_others_gets_a_net_for_one(tmp_path):
    columns = {"y": [0.5, 1.0, 2.5, 1.5, 3.0], "age": [1, 2, 3, 4, 5], "arm": [*"ababa"]}
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns), file)
    words = ["--data.source", str(file), "--data.context", "age", "arm"]
    config, name = parsed(*words)
    assert (name, config.model.architecture) == ("tabular", "autoregressive")
    (tmp_path / "told.yaml").write_text("data:\n  context: [age, arm]\n")
    arguments = ["--config", str(tmp_path / "told.yaml"), "--data.source", str(file)]
    assert parsed(*arguments)[1] == "tabular"


def test_bounds_of_columns(tmp_path):
    words = ("--preprocess.bounds", "a", "0", "None", "b:c", "-1.5", "2")
    config = parsed(*words)[0]
    assert config.preprocess.bounds == {"a": (0.0, None), "b:c": (-1.5, 2.0)}
    (tmp_path / "config.yaml").write_text(dump(config))
    assert parsed("--config", tmp_path / "config.yaml")[0] == config


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_options_of_an_objective_are_arguments_of_its_function(name):
    taken = inspect.signature({**FUNCTIONS, **LEARNED_INVERSE}[name]).parameters
    assert Objective.of(name).arguments.keys() <= taken.keys()


def test_help_names_the_objectives_that_have_an_option(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    text = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "--objective.slices INT ssm, ssm_vr, taylor_sm: random directions" in text
    assert (
        "--model.blocks {None}|INT convolutional: image sizes; autoregressive: residual blocks of "
        "the networks (default: None)"
    ) in text
    assert "--model.activation {None,smooth_leaky_relu,spline,swish,elu,leaky_relu}" in text


def test_another_objective_starts_from_its_own_defaults(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("objective: {name: dsm, sigma: 0.7, weight: 3.0}\n")
    words = ["--config", str(path)]
    assert parsed(*words)[0].objective == Dsm(sigma=0.7, weight=3.0)
    assert parsed(*words, "--objective.name", "ssm")[0].objective == Ssm()
    assert parsed(*words, "--objective.name=ml")[0].objective == Likelihood()
    path.write_text("objective: {name: fd_ssm}\n")
    assert load(path, DensityConfig(objective=Dsm(weight=2.0))).objective == FdSsm()
    found = parsed("--recipe", "dense", "--objective.name", "ssm")[0]
    assert found == recipes.RECIPES["dense"]().changed(objective=Ssm())


COUPLING = ("--model.architecture", "coupling")


@pytest.mark.parametrize(("text", "words", "section", "expected"), [
    ("model: {bins: 8}", COUPLING, "model", Coupling(bins=8)),
    ("model: {hidden: 32, architecture: glow}", COUPLING, "model", Coupling()),
    ("model: {architecture: dense, activation: spline}", COUPLING, "model", Coupling()),
    ("objective: {sigma: 3}", ["--objective.name", "dsm", "--objective.sigma-end", "0.1"],
     "objective", Dsm(sigma=3.0, sigma_end=0.1)),
    ("objective: {sigma: 0.7}", ["--objective.name", "dsm", "--objective.weight", "3"],
     "objective", Dsm(sigma=0.7, weight=3.0)),
    ("train: {batch_size: 100}", ["--workers", "4"], "cluster", ClusterConfig(workers=4)),
    ("cluster: {workers: 1:4}", ["--seed", "2"], "cluster", ClusterConfig(workers="1:4")),
])  # fmt: skip
def test_options_complete_a_file(text, words, section, expected, tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text(text)
    assert getattr(parsed("--config", path, *words)[0], section) == expected


@pytest.mark.parametrize(("text", "words", "line"), [
    ("model: {centred: true}", COUPLING,
     "part.yaml, model.centred: found True, which coupling does not have"),
    ("model: {bins: 8}", [*COUPLING, "--model.centred", "True"],
     "--model.centred: found True, which coupling does not have"),
    ("train: {dtype: float64}", ["--train.precision", "bfloat16"],
     "--train.precision: found bfloat16 with float64"),
    ("preprocess: {bounds: {my_income: [low, null]}}", [],
     "part.yaml, preprocess.bounds: found 'low', expected a number"),
    ("train: {batch_size: 100}", ["--workers", "3"],
     "part.yaml, train.batch_size: found 100, expected a multiple of --cluster.workers = 3"),
    ("train: 3", ["--train.lr", "0.1"], "part.yaml, train: found 3"),
    ("a.b: 4", ["--train.lr", "0.1"], "part.yaml, a.b: found 4"),
])  # fmt: skip
def test_a_message_names_the_file_or_the_option(text, words, line, tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        parsed("--config", path, *words)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(line)


def test_another_architecture_starts_from_its_own_defaults():
    words = ["--recipe", "wide", "--model.architecture"]
    assert recipes.RECIPES["wide"]().model == Dense(depth=2, base="mixture")
    assert parsed(*words, "coupling")[0].model == Coupling()
    assert parsed(*words, "glow", "--model.activation", "elu")[0].model.activation == "elu"


@pytest.mark.parametrize(("words", "line"), [
    (["--model.activation", "swish"], "--model.activation: found 'swish'"),
    ([*COUPLING, "--model.activation", "spline"], "--model.activation: found 'spline'"),
    ([*COUPLING, "--model.hidden", "0"], "--model.hidden: found 0"),
    (["--model.architecture", "glow", "--model.hidden", "0"], "--model.hidden: found 0"),
])  # fmt: skip
def test_values_that_another_architecture_allows(words, line):
    with pytest.raises(BadInput, match=line):
        parsed(*words)
    words = ["--model.architecture", "convolutional", "--model.hidden", "0"]
    assert parsed(*words)[0].model.hidden == 0


def test_only_commands_know_the_command_line():
    root = Path(recipes.__file__).parents[1]
    for file in root.rglob("*.py"):
        room = file.relative_to(root).parts[0]
        assert room == "cli" or "from pipelines.cli" not in file.read_text(), file
