"""The models of every scale, their seeds, settings and controls."""

import pytest

from ebflow.errors import BadInput
from pipelines.gradient_alignment import settings
from pipelines.gradient_alignment.classify import SCHEDULES
from pipelines.gradient_alignment.config import AlignmentConfig, NetworkConfig
from pipelines.gradient_alignment.models import (
    BASELINE,
    BLIND,
    CLIP,
    SCALES,
    flow_config,
    judge,
    measuring,
    models,
    replicates,
)

from .cases import by_name


def test_every_scale_has_a_baseline_and_every_score_its_control():
    for name, scale in SCALES.items():
        some = by_name(scale=name)
        assert {n for n, model in some.items() if model.cell is None} == set(scale.models)
        assert list(some)[:3] == [BASELINE, *BLIND.values()]
    assert len(by_name()) >= 15 and len(replicates(AlignmentConfig())) == 6
    for name in by_name():
        if name.endswith("score"):
            assert name.replace("score", "control") in by_name() or name == "score"


def test_every_seed_has_its_own_split_flows_points_judge_and_classifiers():
    found = replicates(AlignmentConfig(seed=6, data={"label": "label", "seed": 3}))
    drawn = (
        [[one.seed, measuring(one).seed, flow_config(one).training.seed] for one in found],
        [{model.classifier.seed for model in models(one).values()} for one in found],
        [one.data.seed for one in found],
        [judge(one, (8, 8)).seed for one in found],
    )
    for k, (seeds, trained, split, independent) in enumerate(zip(*drawn, strict=True), 6):
        assert seeds == [k] * 3 and trained == {k}
        assert split == k + 3 and independent == 1000 + k


@pytest.mark.parametrize(("shape", "other"), [((8, 8), "cnn"), ((13,), "mlp"), ((3, 9, 9), "mlp")])
def test_the_judge_has_another_architecture(shape, other):
    network = judge(AlignmentConfig(), shape).network
    assert network.name == other and network != SCALES["cpu"].classifier.network
    residual = AlignmentConfig(classifier={"network": "resnet9"})
    assert judge(residual, shape).network.name == other
    assert judge(AlignmentConfig(classifier={"network": "cnn"}), shape).network == NetworkConfig()


def test_a_control_differs_from_its_model_by_the_regularizer_alone():
    found = by_name()
    pairs = [(name, name.replace("control", "score")) for name in found if "-control" in name]
    pairs += [("score-control", "score"), ("centred-control", "centred"), ("score-free", "score")]
    for one, other in pairs:
        if other in found:
            own, yours = found[one].classifier, found[other].classifier
            assert own == yours.model_copy(update={"regularizer": own.regularizer}), one


def test_published_settings_and_recommended_ones():
    """The paper and its code disagree on the weights."""
    trained = {name: model.classifier for name, model in by_name().items()}
    paper, code = (trained[f"{name}-score"].regularizer for name in ("paper", "code"))
    assert (paper.weight, code.weight) == (1e-3, 1e-5)
    for score in (paper, code):
        assert (score.estimator, score.directions) == ("taylor", "gaussian")
        assert (score.step, score.stability, score.slices) == (0.01, 1e-3, 1)
    anti = trained["paper-anti"].regularizer
    assert (anti.weight, anti.step, anti.ceiling) == (1e-4, 0.001, 1000.0)
    gnorm = trained["paper-gnorm"].regularizer
    assert (gnorm.name, gnorm.weight) == ("gnorm", 1e-3)
    assert trained["score"].regularizer.floor == 1.5
    assert trained["score-free"].regularizer.stability == 0
    assert trained["collapse"].noise == 0
    assert by_name(noise=0.2)["score"].classifier.noise == 0.2


def test_scale_full_is_the_papers_training():
    plain = by_name(scale="full")[BASELINE].classifier
    assert plain.network == NetworkConfig(name="resnet18")
    assert (plain.epochs, plain.batch_size, plain.optimizer) == (200, 128, "sgd")
    assert (plain.lr, plain.weight_decay, plain.schedule) == (0.1, 5e-4, "steps")
    assert [SCHEDULES["steps"](epoch / 200) for epoch in (0, 99, 100, 149, 150)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )


def test_the_control_has_the_equivalent_strength():
    penalties = {name: model.classifier.regularizer for name, model in by_name().items()}
    assert penalties["paper-control"].weight == pytest.approx(0.081)
    assert penalties["code-control"].weight == pytest.approx(8.1e-4)
    assert penalties["score-control"].weight == 0.1 and penalties["score-control"].name == "gnorm"


def test_shifted_models_are_the_baselines_training():
    found = by_name()
    assert found["fool-shift"].classifier == found[BASELINE].classifier
    assert found["fool-shift"].shift == "linear"
    assert found["blind-flow"].classifier == found[BASELINE].classifier
    assert found["blind-flow"].shift == "flow"


def test_only_known_models_are_run():
    assert list(by_name(models=("anti",))) == [BASELINE, *BLIND.values(), "anti"]
    with pytest.raises(BadInput, match=r"--models: found 'nothing', expected some of baseline"):
        models(AlignmentConfig(models=("nothing",)))


def test_a_study_without_a_reference_has_no_flow():
    without = {"reference": {"kind": "none"}}
    assert list(by_name(**without, models=("anti",))) == [BASELINE, "anti"]
    assert BLIND["flow"] not in by_name(**without) and BLIND["gaussian"] in by_name(**without)
    with pytest.raises(BadInput, match=r"--models: found 'blind-flow'|--models: found blind-flow"):
        models(AlignmentConfig(**without, models=("blind-flow",)))


def test_sizes_of_measurements_are_options():
    found = measuring(AlignmentConfig(scale="smoke", measure={"points": 40, "samples": 9}))
    plain = measuring(AlignmentConfig(scale="smoke"))
    assert (found.points, found.samples, found.ascent) == (40, 9, plain.ascent)


def test_options_change_every_training():
    options = {"network": "cnn", "hidden": 8, "epochs": 2, "lr": 0.1, "optimizer": "sgd",
               "schedule": "steps", "weight_decay": 5e-4, "augment": "crop",
               "batch_size": 32, "clip": 0.5}  # fmt: skip
    found = by_name(classifier=options, custom={"name": "gnorm", "weight": 0.2})
    for name, model in found.items():
        training = model.classifier
        assert training.network == NetworkConfig(name="cnn", hidden=8), name
        for option in options.keys() - {"network", "hidden"}:
            assert getattr(training, option) == options[option], (name, option)
    assert (
        by_name()["score"].classifier.clip == CLIP and by_name()["gnorm"].classifier.clip is None
    )


def test_every_setting_of_the_paper_has_an_effect(monkeypatch):
    assert settings.without_effect() == []
    same = {"custom.weight": 0.1, "classifier.epochs": 20}
    monkeypatch.setattr(settings, "OTHER", same)
    assert settings.without_effect() == [*same]


def test_another_architecture_has_its_own_width():
    network = by_name(classifier={"network": "resnet9"})[BASELINE].classifier.network
    assert network == NetworkConfig(name="resnet9")
    assert by_name(classifier={"hidden": 32})[BASELINE].classifier.network.hidden == 32


def test_a_custom_regularizer_and_its_control():
    asked = {"name": "score", "weight": 0.3, "stability": 0.01, "step": 0.1, "slices": 4,
             "estimator": "taylor", "directions": "gaussian",
             "clip": 2.0, "noise": 0.2}  # fmt: skip
    found = by_name(custom=asked, models=("baseline",))
    assert list(found)[-2:] == ["custom", "custom-control"]
    own, other = found["custom"].classifier, found["custom-control"].classifier
    for option in asked.keys() - {"clip", "noise"}:
        assert getattr(own.regularizer, option) == asked[option], option
    assert other.regularizer.name == "gnorm"
    assert other.regularizer.weight == pytest.approx(0.3 * (1 + 8 * 0.01 / (4 * 0.1**2)))
    assert (
        (own.clip, own.noise, own.smoothing) == (other.clip, other.noise, 0.1) == (2.0, 0.2, 0.1)
    )
    assert "custom-control" not in by_name(custom=asked | {"name": "gnorm"})


@pytest.mark.parametrize(("custom", "message"), [
    ({"name": "score"}, "--custom.weight: found 0, expected a number above 0"),
    ({"weight": 0.1}, "--custom.name: found none beside other options of custom, expected score"),
])  # fmt: skip
def test_an_incomplete_regularizer_is_refused(custom, message):
    with pytest.raises(BadInput, match=message):
        by_name(custom=custom)
