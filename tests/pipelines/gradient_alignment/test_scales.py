"""The models of every scale, their seeds, settings and controls."""

import pytest

from ebflow.alignment import regularizers
from ebflow.errors import BadInput
from pipelines.gradient_alignment import graph
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    NetConfig,
    RegulariserConfig,
    ShiftConfig,
)
from pipelines.gradient_alignment.models import BASELINE, BLIND, PRESETS, control, penalty_kind
from pipelines.gradient_alignment.scales import SCALES, flow_config, judge, models, replicates

from .cases import by_name


def test_every_scale_has_a_baseline_and_every_score_its_control():
    for name, scale in SCALES.items():
        found = by_name(scale=name)
        assert set(found) == set(scale.models)
        assert list(found)[:3] == [BASELINE, *BLIND.values()]
    assert len(by_name()) >= 15 and len(replicates(AlignmentConfig())) == 6
    trained = [m for m in by_name(scale="images").values() if m.shift.name == "none"]
    assert len(trained) >= 10
    exact = {name for name, scale in SCALES.items() if scale.measure.estimators}
    assert exact == {"smoke", "cpu"}  # Hessians of images take gigabytes
    for name in by_name():
        if name.endswith("score"):
            assert name.replace("score", "control") in by_name() or name == "score"


def test_a_seed_draws_everything_anew():
    found = replicates(AlignmentConfig(seed=6, data={"label": "label", "seed": 3}))
    drawn = (
        [[one.seed, graph.measuring(one).seed, flow_config(one).training.seed] for one in found],
        [{model.classifier.seed for model in models(one)} for one in found],
        [one.data.seed for one in found],
        [judge(one, (8, 8)).seed for one in found],
    )
    for k, (seeds, trained, split, independent) in enumerate(zip(*drawn, strict=True), 6):
        assert seeds == [k] * 3 and trained == {k}
        assert split == k + 3 and independent == 1000 + k


@pytest.mark.parametrize("scale", ["images", "full"])
def test_where_flows_cost_too_much_data_are_those_of_the_first_seed(scale):
    found = replicates(AlignmentConfig(scale=scale, seed=6))
    assert [one.data.seed for one in found] == [6] * 3 and [one.seed for one in found] == [6, 7, 8]


@pytest.mark.parametrize(
    ("net", "shape", "other"),
    [("mlp", (8, 8), "cnn"), ("mlp", (13,), "mlp"), ("mlp", (3, 9, 9), "mlp"),
     ("cnn", (28, 28), "mlp"), ("resnet18", (3, 32, 32), "mlp")],
)  # fmt: skip
def test_the_judge_has_another_architecture(net, shape, other):
    found = judge(AlignmentConfig(net=net), shape).net
    assert found.name == other and found != NetConfig(name=net)


def test_a_control_differs_from_its_model_by_the_regularizer_alone():
    found = by_name()
    pairs = [(name, name.replace("control", "score")) for name in found if "-control" in name]
    pairs += [("score-control", "score"), ("centred-control", "centred"), ("score-free", "score")]
    for one, other in pairs:
        if other in found:
            own, yours = found[one].classifier, found[other].classifier
            assert own == yours.model_copy(update={"regularizer": own.regularizer}), one


def test_presets_reach_the_trainings():
    found = by_name()
    paper = found["paper-score"].classifier.regularizer
    assert (paper.weight, paper.estimator, paper.directions) == (1e-3, "taylor", "gaussian")
    assert (paper.step, paper.stability, paper.slices) == (0.01, 1e-3, 1)
    assert found["paper-anti"].classifier.regularizer.step == 0.001
    assert found["score"].classifier.regularizer.floor == 1.5
    assert found["score-free"].classifier.regularizer.stability == 0
    assert found["collapse"].classifier.noise == 0
    assert found["paper-score"].preset == "paper" and found["code-score"].preset == "official-code"
    full = by_name(scale="full")["score"].classifier
    assert (full.net.name, full.epochs, full.optimizer, full.lr) == ("resnet18", 200, "sgd", 0.1)
    images = by_name(scale="images", epochs=3, noise=0.2)["score"].classifier
    assert (images.net.name, images.epochs, images.noise) == ("cnn", 3, 0.2)
    assert by_name(scale="images", net="mlp")["score"].classifier.net == NetConfig()


def test_the_control_has_the_equivalent_strength():
    found = by_name()
    assert found["paper-control"].classifier.regularizer.weight == pytest.approx(0.081)
    assert found["code-control"].classifier.regularizer.weight == pytest.approx(8.1e-4)
    assert found["score-control"].classifier.regularizer.weight == 0.1
    assert control(RegulariserConfig(name="score", weight=0.1)).name == "gnorm"
    whole = found["paper-quiet"].classifier.regularizer
    assert (whole.name, whole.weight, whole.estimator) == ("score", 1e-3, "taylor_cv")
    assert whole.excess == pytest.approx(80)
    options = {"estimator": "taylor_cv", "directions": "gaussian", "step": 0.01, "excess": 80.0}
    assert options.items() <= whole.options(regularizers.score_matching).items()


def test_shifted_models_are_the_baselines_training():
    found = by_name()
    assert found["fool-shift"].classifier == found[BASELINE].classifier
    assert found["fool-shift"].shift == ShiftConfig(name="linear", size=100.0)
    assert found["blind-flow"].classifier == found[BASELINE].classifier
    assert found["blind-flow"].shift.name == "flow"


def test_only_known_models_are_run():
    assert list(by_name(models=("anti",))) == [BASELINE, *BLIND.values(), "anti"]
    with pytest.raises(BadInput, match=r"--models: found 'nothing', expected some of baseline"):
        models(AlignmentConfig(models=("nothing",)))


def test_score_matching_in_disguise_is_a_gradient_norm():
    kinds = {name: penalty_kind(one.classifier.regularizer) for name, one in by_name().items()}
    disguised = ("paper-score", "paper-quiet", "code-score", "paper-control", "gnorm")
    assert {kinds[name] for name in disguised} == {("gnorm", False)}
    assert kinds["score"] == kinds["score-free"] == kinds["collapse"] == ("score", False)
    assert kinds["centred"] == ("score", True) and kinds["centred-control"] == ("gnorm", True)
    assert kinds["paper-anti"] == ("anti", False) and kinds["baseline"] == ("none", False)


def test_presets_have_the_published_values():
    paper, code = PRESETS["paper"], PRESETS["official-code"]
    assert (paper["score"]["weight"], code["score"]["weight"]) == (1e-3, 1e-5)
    assert (paper["anti"]["ceiling"], code["anti"]["ceiling"]) == (1000.0, 1e4)
    assert (paper["gnorm"]["weight"], code["gnorm"]["weight"]) == (1e-3, 1e-5)
    for kinds in PRESETS.values():
        assert kinds.keys() == regularizers.REGULARIZERS.keys()
