"""The lines that tell how flows were trained."""

from pydantic_core import PydanticUndefined

from pipelines.config import Section, TaylorSm, TrainConfig, Training, recipes


def test_what_is_at_its_default_is_not_told():
    assert Training().method == "dsm on dense"


def test_the_default_recipe():
    assert recipes.digits().method == (
        "lazy_ml on dense (preprocess.shrinkage None, anchor.tolerance 0.2)"
    )


def test_seeds_and_where_a_training_runs_are_not_told():
    config = Training(seed=3).changed(cluster={"workers": 2})
    assert config.method == "dsm on dense"


def test_options_are_told_as_they_are_typed():
    config = Training(
        objective=TaylorSm(step=0.1),
        train=TrainConfig(optimizer="rmsprop", lr=1e-4, noise=0.1 + 0.2),
    )
    assert config.method == (
        "taylor_sm on dense (objective.step 0.1, train.optimizer rmsprop, "
        "train.lr 0.0001, train.noise 0.3)"
    )


def places(section, inside=()):
    """Yields the fields of a section and of those in it, by their ways through them."""
    for name, field in section.model_fields.items():
        assert field.default is not PydanticUndefined
        inner = isinstance(field.default, Section)
        yield from places(type(field.default), (*inside, name)) if inner else [(*inside, name)]


def differing(config, place):
    """Returns the same with another value, of whatever type, in one place."""
    *sections, value = place
    change = {value: "other"}
    for name in reversed(sections):
        change = {name: change}
    return config.changed(**change)


def test_no_option_is_forgotten():
    for place in places(Training):
        if place[0] not in {"seed", "cluster"}:
            other = differing(Training(), place)
            assert other.method != Training().method, place
