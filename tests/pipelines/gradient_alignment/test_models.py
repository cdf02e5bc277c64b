"""The models of every scale, their seeds, settings and controls."""

import pytest

from ebflow.errors import BadInput
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.models import (
    BASELINE,
    BLIND,
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
        assert set(some) == set(scale.models)
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
    assert trained["score"].regularizer.floor == 1.5
    assert trained["score-free"].regularizer.stability == 0
    assert trained["collapse"].noise == 0
    assert by_name(noise=0.2)["score"].classifier.noise == 0.2


def test_the_control_has_the_equivalent_strength():
    penalties = {name: model.classifier.regularizer for name, model in by_name().items()}
    assert penalties["paper-control"].weight == pytest.approx(0.081)
    assert penalties["code-control"].weight == pytest.approx(8.1e-4)
    assert penalties["score-control"].weight == 0.1 and penalties["score-control"].name == "gnorm"


def test_shifted_models_are_the_baselines_training():
    found = by_name()
    assert found["fool-shift"].classifier == found[BASELINE].classifier
    assert found["fool-shift"].shift == "pattern"
    assert found["blind-flow"].classifier == found[BASELINE].classifier
    assert found["blind-flow"].shift == "flow"


def test_only_known_models_are_run():
    assert list(by_name(models=("anti",))) == [BASELINE, *BLIND.values(), "anti"]
    with pytest.raises(BadInput, match=r"--models: found 'nothing', expected some of baseline"):
        models(AlignmentConfig(models=("nothing",)))
