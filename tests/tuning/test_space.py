"""The search space: proposals are configurations, and ask only for options with an effect."""

import optuna
import pytest
import torch
from optuna.trial import FixedTrial

from ebflow.randomness import generator
from pipelines.config import Coupling, Dense, DensityConfig, Dsm, Likelihood, Objective, Training
from pipelines.config.objective import OBJECTIVES, LearnedInverse
from pipelines.config.recipes import RECIPES
from pipelines.config.section import changes
from pipelines.training.flow_training import build_flow
from tuning.config import SearchConfig, TuneConfig
from tuning.search import searcher
from tuning.space import COLUMNS, IMAGES, SUBJECTS, Suggest, space

EVERYTHING = SearchConfig(over=tuple(SUBJECTS))
SAMPLES = 30


def named(name, recipe="digits", anchored=True):
    base = RECIPES[recipe]().training
    update = {"objective": Objective.of(name)}
    if isinstance(update["objective"], LearnedInverse):
        update["model"] = Dense(linear="learned_inverse")
    if not anchored:
        update["anchor"] = base.anchor.model_copy(update={"weight": 0.0})
    return base.model_copy(update=update)


def sampled(base, search=EVERYTHING):
    """Yields random proposals with the parameters that they were made of."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(SAMPLES):
        suggest = Suggest(base, study.ask())
        yield space(suggest, search), suggest.params


@pytest.fixture(autouse=True, scope="module")
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("anchored", [True, False], ids=["anchored", "alone"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_proposal_is_a_configuration(name, anchored):
    for config, params in sampled(named(name, anchored=anchored)):
        assert Training.model_validate(config.model_dump()) == config
        assert config.objective.name == name
        for option in params:
            section, _, field = option.partition(".")
            if field and " " not in option and section in Training.model_fields:
                assert getattr(getattr(config, section), field) == params[option], option


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_default_is_a_point_of_the_space(recipe):
    base = RECIPES[recipe]().training
    start = Suggest(base)
    default = space(start, EVERYTHING)
    own = {option.partition(" ")[0] for option in start.params}
    assert all(name.startswith("model.") and name in own for name in changes(base, default))
    assert space(Suggest(base, FixedTrial(start.params)), EVERYTHING) == default


def test_a_range_is_widened_to_contain_the_default():
    base = named("dsm")
    far = base.model_copy(update={"objective": Dsm(sigma=7.0)})
    suggest = Suggest(far)
    space(suggest, EVERYTHING)
    assert suggest.params["objective.sigma"] == 7.0
    assert max(config.objective.sigma for config, _ in sampled(far)) > 1.0
    assert max(config.objective.sigma for config, _ in sampled(base)) <= 1.0


def params_of(name):
    return set().union(*(params for _, params in sampled(named(name))))


OPTIONS = {
    "dsm": ({"objective.sigma", "noise"}, {"objective.epsilon"}),
    "fd_ssm": ({"objective.epsilon"}, {"objective.sigma"}),
    "ssm": ({"objective.slices"}, {"objective.step"}),
    "taylor_sm": ({"objective.step"}, {"objective.sigma"}),
    "ml": (set(), {"stabilise.finish", "anchor.weight", "anchor.interval"}),
    "relative_ml": (set(), {"stabilise.finish", "stabilise.low_energy used"}),
    "lazy_ml": ({"anchor.interval", "anchor.tolerance used"}, {"anchor.weight", "anchored"}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_only_options_of_the_objective_are_asked_for(name):
    used, unused = OPTIONS[name]
    assert used <= params_of(name) and not unused & params_of(name)
    if issubclass(OBJECTIVES[name], Likelihood):
        assert "objective.every" not in params_of(name)


def test_an_option_that_depends_on_a_choice_is_asked_for_with_it_alone():
    for config, params in sampled(named("dsm", anchored=False)):
        assert ("anchor.weight" in params) == params["anchored"] == bool(config.anchor.weight)
        assert ("objective.every" in params) == params["anchored"]
        assert ("objective.sigma_end" in params) == (params["noise"] != "constant")
        assert ("stabilise.low_energy" in params) == params["stabilise.low_energy used"]
        assert ("train.clip" in params) == (config.train.clip is not None)
        assert ("preprocess.scale" in params) == (config.preprocess.normalize == "none")


SECTIONS = {
    "architecture": "model",
    "stabilisation": "stabilise",
    "optimization": "train",
    "preprocessing": "preprocess",
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_other_subjects_stay(subject):
    for config, _ in sampled(named("dsm"), SearchConfig(over=(subject,))):
        changed = {name.split(".")[0] for name in changes(named("dsm"), config)}
        assert changed <= {SECTIONS.get(subject, subject)}


@pytest.mark.parametrize("recipe", ["digits", "tabular"])
def test_architectures_suit_the_data_and_every_network_can_be_created(recipe):
    base = RECIPES[recipe]().training
    suited, shape = (COLUMNS, (5,)) if recipe == "tabular" else (IMAGES, (8, 8))
    proposals = list(sampled(base, SearchConfig(over=("architecture",))))
    assert {config.model.architecture for config, _ in proposals} == set(suited)
    assert {config.model.base for config, _ in proposals} == {"normal", "mixture"}
    for config, params in proposals:
        model = config.model.changed(base="normal")
        flow = build_flow(model, shape, generator=generator(0, "weights"), dtype=torch.float32)
        assert flow.spec["architecture"] == model.architecture == params["model.architecture"]
        depth = params[f"model.depth of {model.architecture}"]
        assert depth in (None, flow.spec["options"]["depth"])


def test_a_network_that_stays_keeps_its_options():
    model = Coupling(depth=2, bound=1.5)
    base = named("dsm", "tabular").model_copy(update={"model": model})
    models = [config.model for config, _ in sampled(base, SearchConfig(over=("architecture",)))]
    bounds = {(m.bins, m.bound) for m in models if m.architecture == "coupling"}
    assert bounds == {(None, 1.5), (8, None)}


def first(seed, count=8):
    """Returns the options in which the first trials of a seed differ from the default."""
    config = TuneConfig(base=DensityConfig(seed=seed))
    proposals = searcher(config)
    trials = [proposals.suggest(str(number))["training"] for number in range(count)]
    return [changes(config.start, Training.model_validate(trial)) for trial in trials]


def test_the_same_seed_gives_the_same_first_trials_and_the_default_is_the_first():
    one, two, other = first(0), first(0), first(1)
    assert one == two and one[1:] != other[1:]
    assert one[0] == other[0] == {}


def test_the_first_trials_change_the_default_in_one_subject_each():
    sections = [{name.split(".")[0] for name in trial} for trial in first(0)]
    turns = ["anchor", "objective", "stabilise", "train"]
    for changed, section in zip(sections[1:], [*turns, *turns], strict=False):
        assert changed <= {section}
    assert sum(map(len, sections)) >= 5


def test_of_pixels_only_what_has_an_effect_is_searched():
    base = RECIPES["pixels"]().training
    names = {name for _, params in sampled(base, EVERYTHING) for name in params}
    assert {"model.depth of pixelcnn", "model.hidden of pixelcnn", "train.lr"} <= names
    assert not any(name.startswith(("anchor", "stabilise", "preprocess")) for name in names)
