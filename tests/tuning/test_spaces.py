"""Search spaces: what is proposed is a configuration, and nothing is asked for in vain."""

import optuna
import pytest
import torch
from optuna.trial import FixedTrial

from ebflow.randomness import generator
from pipelines.config import LIKELIHOOD, DensityConfig, ModelConfig, ObjectiveConfig, Training
from pipelines.config.changes import changes
from pipelines.config.recipes import RECIPES
from pipelines.training.nets import net
from tuning import suggest
from tuning.density.config import DensitySearch, DensityTune
from tuning.density.space import COLUMNS, IMAGES, SPACE, known, space
from tuning.problems import problem
from tuning.search import searcher
from tuning.suggest import Suggest

NAMES = ObjectiveConfig.model_fields["name"].annotation.__args__
EVERYTHING = DensitySearch(over=tuple(SPACE))
DRAWS = 30


def named(name, recipe="digits", anchored=True):
    base = RECIPES[recipe]().training
    update = {"objective": ObjectiveConfig(name=name)}
    if not anchored:
        update["anchor"] = base.anchor.model_copy(update={"weight": 0.0})
    return base.model_copy(update=update)


def propose(ask, search, base):
    return suggest.propose(ask, space(search), search.over, base)


def drawn(base, config=EVERYTHING, seed=0):
    """Yields random proposals with the parameters that they were made of."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(DRAWS):
        ask = Suggest(study.ask())
        yield propose(ask, config, base), ask.params


@pytest.fixture(autouse=True, scope="module")
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("anchored", [True, False], ids=["anchored", "alone"])
@pytest.mark.parametrize("name", NAMES)
def test_every_proposal_is_a_configuration(name, anchored):
    for config, params in drawn(named(name, anchored=anchored)):
        assert Training.model_validate(config.model_dump()) == config
        assert config.objective.name == name
        for option in params:
            section, _, field = option.partition(".")
            if field and " " not in option and section in Training.model_fields:
                assert getattr(getattr(config, section), field) == params[option], option


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_base_is_a_point_of_its_space(recipe):
    base = RECIPES[recipe]().training
    start = Suggest()
    found = changes(base, propose(start, EVERYTHING, base))
    own = {option.partition(" ")[0] for option in start.params}
    assert all(name.startswith("model.") and name in own for name in found)
    assert {**known(base.model), **plain(found)} == known(base.model)
    fixed = Suggest(FixedTrial(start.params))
    assert propose(fixed, EVERYTHING, base) == propose(Suggest(), EVERYTHING, base)


def plain(found):
    return {name.removeprefix("model."): value for name, value in found.items()}


def test_a_range_is_widened_to_contain_the_base():
    base = named("dsm")
    far = base.model_copy(update={"objective": ObjectiveConfig(sigma=7.0)})
    ask = Suggest()
    propose(ask, EVERYTHING, far)
    assert ask.params["objective.sigma"] == 7.0
    assert max(config.objective.sigma for config, _ in drawn(far)) > 1.0
    assert max(config.objective.sigma for config, _ in drawn(base)) <= 1.0


def params_of(name, **options):
    return set().union(*(params for _, params in drawn(named(name, **options))))


def test_options_of_an_objective_are_asked_for_by_it_alone():
    assert {"objective.sigma", "noise"} <= params_of("dsm")
    assert "objective.epsilon" in params_of("fd_ssm") and "objective.epsilon" not in params_of(
        "dsm"
    )
    assert "objective.slices" in params_of("ssm") and "objective.slices" not in params_of(
        "exact_sm"
    )
    assert "objective.step" in params_of("taylor_sm") and "objective.sigma" not in params_of(
        "taylor_sm"
    )


def test_likelihoods_have_no_anchor_and_lazy_ml_its_rule_alone():
    for name in LIKELIHOOD:
        found = {option for option in params_of(name) if option.startswith("anchor")}
        rule = {"anchor.interval", "anchor.tolerance", "anchor.tolerance used"}
        assert found == (rule if name == "lazy_ml" else set()), name
    assert "stabilise.finish" not in params_of("ml")
    assert not [option for option in params_of("relative_ml") if option.startswith("stabilise")]


def test_what_depends_on_a_choice_is_asked_for_after_it_alone():
    for config, params in drawn(named("dsm", anchored=False)):
        assert ("anchor.weight" in params) == params["anchored"] == bool(config.anchor.weight)
        assert ("objective.every" in params) == params["anchored"]
        assert ("objective.sigma_end" in params) == (params["noise"] != "constant")
        assert ("objective.levels" in params) == (params["noise"] == "levels")
        assert ("stabilise.low_energy" in params) == params["stabilise.low_energy used"]
        assert ("train.clip" in params) == (config.train.clip is not None)
        assert ("preprocess.scale" in params) == (config.preprocess.normalize == "none")


def test_what_is_not_searched_over_stays():
    for subject in SPACE:
        for config, _ in drawn(named("dsm"), DensitySearch(over=(subject,))):
            sections = {name.split(".")[0] for name in changes(named("dsm"), config)}
            section_of = {"stabilisation": "stabilise", "optimization": "train",
                    "preprocessing": "preprocess", "start": "model",
                    "architecture": "model", "activation": "model", "base": "model"}  # fmt: skip
            assert sections <= {section_of.get(subject, subject)}


@pytest.mark.parametrize("recipe", ["digits", "tabular"])
def test_architectures_suit_the_data_and_every_net_can_be_made(recipe):
    base = RECIPES[recipe]().training
    suited, shape = (COLUMNS, (5,)) if recipe == "tabular" else (IMAGES, (8, 8))
    config = DensitySearch(over=("architecture", "activation", "start"))
    found = list(drawn(base, config))
    assert {made.model.architecture for made, _ in found} == set(suited)
    for made, params in found:
        model = made.model
        flow = net(model, shape, generator=generator(0, "weights"), dtype=torch.float32)
        assert flow.spec["architecture"] == model.architecture == params["model.architecture"]
        assert flow.spec["options"]["depth"] == params[f"model.depth of {model.architecture}"]
        assert ("model.cells" in params) == (model.activation == "spline")


def test_another_architecture_keeps_what_means_the_same_there():
    config = DensitySearch(over=("architecture",))
    found = [made.model for made, _ in drawn(named("dsm", "wide"), config)]
    assert {model.bins for model in found if model.architecture == "autoregressive"} == {4, 8, 16}
    assert all(model.activation is None or model.architecture == "dense" for model in found)
    assert {model.base for model in found} == {"mixture"}


def test_a_bound_of_scales_goes_where_splines_come():
    model = ModelConfig(architecture="coupling", depth=2, bound=1.5)
    base = named("dsm", "tabular").model_copy(update={"model": model})
    found = [made.model for made, _ in drawn(base, DensitySearch(over=("architecture",)))]
    couplings = {(m.bins, m.bound) for m in found if m.architecture == "coupling"}
    assert couplings == {(None, 1.5), (8, None)}


def test_bases_are_chosen_from():
    found = [made for made, _ in drawn(named("dsm"), DensitySearch(over=("base",)))]
    assert {made.model.base for made in found} == {"normal", "mixture"}
    assert all(made.chain.mixture == (made.model.base == "mixture") for made in found)


def test_a_net_that_stays_keeps_itsknown():
    base = named("dsm", "tabular")
    model = ModelConfig(architecture="coupling", depth=20, bins=5, activation="elu")
    base = base.model_copy(update={"model": model})
    config = DensitySearch(over=("architecture",))
    assert propose(Suggest(), config, base).model.model_dump(exclude={"hidden"}) == (
        model.model_dump(exclude={"hidden"})
    )
    bins = {
        m.bins for made, _ in drawn(base, config) if (m := made.model).architecture == "coupling"
    }
    assert bins == {5, None, 8}


def test_objectives_are_chosen_from_with_their_ownknown():
    config = DensitySearch(objectives=("ssm", "fd_ssm"))
    found = list(drawn(named("dsm"), config))
    assert {made.objective.name for made, _ in found} == {"dsm", "ssm", "fd_ssm"}
    for made, params in found:
        assert ("objective.epsilon" in params) == (made.objective.name == "fd_ssm")


def first(seed, count=8):
    proposals = searcher(problem(DensityTune(base=DensityConfig(seed=seed))))
    return [proposals.suggest(str(i)) for i in range(count)]


def test_the_same_seed_gives_the_same_first_trials_and_the_base_is_the_first():
    one, two, other = first(0), first(0), first(1)
    assert one == two and one[1:] != other[1:]
    assert one[0]["changes"] == other[0]["changes"] == {}


def test_the_first_trials_change_the_base_in_one_subject_each():
    sections = [{name.split(".")[0] for name in trial["changes"]} for trial in first(0)]
    turns = ["anchor", "objective", "stabilise", "train"]
    for changed, section in zip(sections[1:], [*turns, *turns], strict=False):
        assert changed <= {section}
    assert sum(map(len, sections)) >= 5
