"""Configurations: reading, writing, precedence, keys."""

import pytest
import yaml

from ebflow.errors import BadInput
from pipelines import recipes
from pipelines.config import DensityConfig, ObjectiveConfig, TrainConfig, canonical
from pipelines.config_files import dump, load
from pipelines.parsing import parse_density


def changed(config, section, **fields):
    return config.model_copy(update={section: getattr(config, section).model_copy(update=fields)})


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_yaml_round_trip(name, tmp_path):
    config = recipes.named(name)
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert load(path, recipes.tabular()) == config


def test_what_a_file_leaves_out_comes_from_the_base(tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("train: {lr: 1e-2}\n")
    base = recipes.tabular()
    assert load(path, base) == changed(base, "train", lr=1e-2)


def test_options_go_over_the_file_which_goes_over_the_recipe(tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("train: {lr: 0.5, steps: 7}\nseed: 3\n")
    words = ["--recipe", "tabular", "--config", str(path), "--train.steps", "9"]
    config = parse_density(words).config
    assert (config.train.lr, config.train.steps, config.seed) == (0.5, 9, 3)
    assert config.preprocess == recipes.tabular().preprocess


def test_the_file_of_an_earlier_run_reproduces_its_configuration(tmp_path):
    first = parse_density(["--train.lr", "0.02", "--evaluate.draws", "3", "--name", "mine"]).config
    path = tmp_path / "config.yaml"
    path.write_text(dump(first))
    assert parse_density(["--config", str(path)]).config == first


def test_configurations_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        DensityConfig().train.lr = 1.0


@pytest.mark.parametrize(
    "section, fields",
    [("cluster", {"max_failures": 7}), ("data", {"source": "elsewhere"})],
)
def test_what_changes_no_number_changes_no_key(section, fields):
    config = DensityConfig()
    assert canonical(changed(config, section, **fields)) == canonical(config)


@pytest.mark.parametrize(
    "section, fields",
    [("train", {"lr": 2.0}), ("cluster", {"workers": 2}), ("data", {"seed": 1})],
)
def test_what_changes_numbers_changes_the_key(section, fields):
    config = DensityConfig()
    assert canonical(changed(config, section, **fields)) != canonical(config)


def test_differences_in_double_precision_may_have_any_setting():
    train = TrainConfig(dtype="float64", precision="high")
    assert DensityConfig(objective=ObjectiveConfig(name="fd_ssm"), train=train).train == train


def test_the_key_does_not_depend_on_how_equal_values_were_made():
    spelled = DensityConfig.model_validate(yaml.safe_load(dump(DensityConfig())))
    assert canonical(spelled) == canonical(DensityConfig())


def test_the_recipe_follows_the_source(tabular_file, image_file):
    assert recipes.for_source("digits") == (recipes.digits(), "digits")
    assert recipes.for_source(str(tabular_file))[0].preprocess.logit is None
    assert recipes.for_source(str(image_file))[0].objective == recipes.mnist9k().objective
    assert recipes.for_source(str(image_file))[0].name == image_file.stem
    assert recipes.for_source(str(image_file))[1] == "mnist9k"


def test_unknown_recipe():
    with pytest.raises(BadInput, match="--recipe: found 'none', expected one of digits"):
        recipes.named("none")
