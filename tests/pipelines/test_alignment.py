"""The study of gradient alignment: its models, stages, claims, and a real run."""

import json
import math
import re
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from ebflow.alignment import regularisers
from ebflow.alignment.fooling import linear, shifted
from ebflow.alignment.logit import ClassLogit
from ebflow.alignment.reference import Reference, pooled
from ebflow.alignment.rows import unit_rows
from ebflow.architectures import dense
from ebflow.bases import GaussianMixture
from ebflow.checkpoint import load, save
from ebflow.data.loader import Dataset
from ebflow.data.prepare import prepare
from ebflow.errors import BadInput
from ebflow.execution import Checkpoints
from ebflow.randomness import generator
from ebflow.train import Trainer
from pipelines.cluster import environment
from pipelines.gradient_alignment import (
    comparisons,
    figures,
    fitting,
    graph,
    judged,
    references,
    verdicts,
)
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    ClassifierConfig,
    FlowConfig,
    MeasureConfig,
    NetConfig,
    RegulariserConfig,
    ShiftConfig,
)
from pipelines.gradient_alignment.holdout import MOST, Held
from pipelines.gradient_alignment.known import known
from pipelines.gradient_alignment.measures import Subject, measure
from pipelines.gradient_alignment.models import BASELINE, BLIND, control, penalised
from pipelines.gradient_alignment.references import Points
from pipelines.gradient_alignment.scales import SCALES, flow_config, judge, models, replicates
from pipelines.gradient_alignment.stages import classify, flow, reference
from pipelines.gradient_alignment.table import Measured, entry, lines
from pipelines.gradient_alignment.tables import tables
from pipelines.training import loop

from .conftest import Store

QUICK = ClassifierConfig(epochs=4, batch_size=64, regulariser={"name": "gnorm", "weight": 0.01})
FAST = FlowConfig(
    label=1, draws=4, training={"preprocess": {"logit": None, "shrinkage": 0.01},
                                "objective": {"name": "lazy_ml"},
                                "train": {"steps": 40, "validate_every": 10}},
)  # fmt: skip


class Untracked:
    """A stage's run that keeps what it is told."""

    def __init__(self):
        self.rows, self.tags = [], {}

    def log_params(self, params):
        self.params = params

    def log_input(self, manifest, context):
        self.context = context

    def log_metrics(self, metrics):
        self.metrics = metrics

    def log_rows(self, rows):
        self.rows += rows

    def set_tags(self, tags):
        self.tags |= tags


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Prepared digits with classes."""
    folder = tmp_path_factory.mktemp("digits") / "data"
    prepare("digits", folder, label="label")
    return folder


def by_name(**options):
    return {model.name: model for model in models(AlignmentConfig(**options))}


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


def made(kind, config, inputs, title=""):
    """What a graph asks for, instead of an artefact."""
    return kind, config, inputs, title


@pytest.mark.parametrize(("scale", "own"), [("cpu", 6), ("images", 1)])
def test_the_graph_is_a_replicate_for_every_seed(scale, own, monkeypatch):
    for kind in ("prepare", "flow", "reference", "blind", "classify", "measure", "align"):
        monkeypatch.setattr(graph, kind, partial(made, kind))
    monkeypatch.setattr(graph, "judged", lambda config, data: ("judge", config.seed, data))
    monkeypatch.setattr(graph, "flows", lambda config, *inputs: ("flows", config.seed, inputs))
    monkeypatch.setattr(graph, "together", lambda found: found)
    monkeypatch.setattr(graph, "catch_all", lambda found, *_: found)
    config = AlignmentConfig(scale=scale)
    _, _, (data, densities, found), _ = graph.alignment(config, "source")
    seeds = [one.seed for one in replicates(config)]
    assert len(data) == len(densities) == len(seeds) and len({repr(one) for one in data}) == own
    assert [one[1].seed for (one, _) in densities] == seeds
    assert len({repr(one[2][1]) for (one, _) in densities}) == own  # flows of the classes
    assert len({repr(one[2][1]) for (_, one) in densities}) == own  # the flow of all rows
    assert len(found) == len(seeds) * len(models(config))
    for k, (kind, settings, (base, reference_, blind_, trained), _) in enumerate(found):
        seed = k // len(models(config))
        assert kind == "measure" and settings.seed == seeds[seed] and base == data[seed]
        assert [reference_, blind_] == densities[seed] and trained[2] == ("judge", seed, base)
        assert [one[1].seed for one in trained[:2]] == [seed] * 2


@pytest.mark.parametrize(
    ("net", "shape", "other"),
    [("mlp", (8, 8), "cnn"), ("mlp", (13,), "mlp"), ("mlp", (3, 9, 9), "mlp"),
     ("cnn", (28, 28), "mlp"), ("resnet18", (3, 32, 32), "mlp")],
)  # fmt: skip
def test_the_judge_has_another_architecture(net, shape, other):
    found = judge(AlignmentConfig(net=net), shape).net
    assert found.name == other and found != NetConfig(name=net)


def test_a_control_differs_from_its_model_by_the_regulariser_alone():
    found = by_name()
    pairs = [(name, name.replace("control", "score")) for name in found if "-control" in name]
    pairs += [("score-control", "score"), ("centred-control", "centred"), ("score-free", "score")]
    for one, other in pairs:
        if other in found:
            own, yours = found[one].classifier, found[other].classifier
            assert own == yours.model_copy(update={"regulariser": own.regulariser}), one


def test_presets_reach_the_trainings():
    found = by_name()
    paper = found["paper-score"].classifier.regulariser
    assert (paper.weight, paper.estimator, paper.directions) == (1e-3, "taylor", "gaussian")
    assert (paper.step, paper.stability, paper.slices) == (0.01, 1e-3, 1)
    assert found["paper-anti"].classifier.regulariser.step == 0.001
    assert found["score"].classifier.regulariser.floor == 1.5
    assert found["score-free"].classifier.regulariser.stability == 0
    assert found["collapse"].classifier.noise == 0
    assert found["paper-score"].preset == "paper" and found["code-score"].preset == "official-code"
    full = by_name(scale="full")["score"].classifier
    assert (full.net.name, full.epochs, full.optimizer, full.lr) == ("resnet18", 200, "sgd", 0.1)
    images = by_name(scale="images", epochs=3, noise=0.2)["score"].classifier
    assert (images.net.name, images.epochs, images.noise) == ("cnn", 3, 0.2)
    assert by_name(scale="images", net="mlp")["score"].classifier.net == NetConfig()


def test_the_control_has_the_equivalent_strength():
    found = by_name()
    assert found["paper-control"].classifier.regulariser.weight == pytest.approx(0.081)
    assert found["code-control"].classifier.regulariser.weight == pytest.approx(8.1e-4)
    assert found["score-control"].classifier.regulariser.weight == 0.1
    assert control(RegulariserConfig(name="score", weight=0.1)).name == "gnorm"
    whole = found["paper-quiet"].classifier.regulariser
    assert (whole.name, whole.weight, whole.estimator) == ("score", 1e-3, "taylor_cv")
    assert whole.excess == pytest.approx(80)
    options = {"estimator": "taylor_cv", "directions": "gaussian", "step": 0.01, "excess": 80.0}
    assert options.items() <= whole.options(regularisers.score_matching).items()


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


def test_the_floor_is_in_units_of_the_smoothed_data():
    config = RegulariserConfig(name="score", floor=1.5)
    assert fitting.penalty(config, (8, 8), 0.1).keywords["floor"] == pytest.approx(-9600)
    assert fitting.penalty(RegulariserConfig(), (8, 8), 0.1) is None


def test_a_centred_regulariser_and_its_control_do_not_see_a_shift(digits):
    found = by_name()
    for name in ("centred", "centred-control"):
        config = found[name].classifier.regulariser
        assert config.centred and config.weight == 0.1
        draws = torch.Generator().manual_seed(0)
        x = torch.rand(8, 64, generator=draws, dtype=torch.float64)
        pattern, labels = torch.rand(64, generator=draws).double(), torch.arange(8) % 10
        network = fitting.network(NetConfig(), (8, 8), 10, 0).double()
        penalty = fitting.penalty(config, (8, 8), 0.1)
        losses = [
            penalty(ClassLogit(f, labels), x, generator=torch.Generator().manual_seed(0))
            for f in (network, shifted(network, linear(pattern, 10.0)))
        ]
        torch.testing.assert_close(*losses)
    assert fitting.penalty(found["score"].classifier.regulariser, (8, 8), 0.1) is not None


def fitted(digits, work, **changed):
    return fitting.fit(QUICK.model_copy(update=changed), Dataset(digits), work)


def test_a_collapse_is_diagnosed_by_name(digits, tmp_path):
    """Data said to be smoothed by 100 have a floor that any network is below."""
    assert fitted(digits, tmp_path / "sound").diagnosis == ""
    diagnosis = fitted(digits, tmp_path / "low", smoothing=100.0).diagnosis
    assert (
        diagnosis.startswith("collapse: mean trace -") and "below the floor -0.0064" in diagnosis
    )


def test_a_divergence_is_diagnosed_and_told_as_no_number(digits, tmp_path):
    config = QUICK.model_copy(update={"lr": 1e30})
    found = fitting.fit(config, Dataset(digits), tmp_path / "work")
    assert found.diagnosis.startswith("diverged: loss: found") and not found.epochs
    fitting.save(tmp_path, found)
    kept = fitting.load(tmp_path, (8, 8), 10)
    assert kept.diverged and kept.diagnosis == found.diagnosis


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("paper-score", ["a gradient-norm penalty in disguise: 8 mu / (K sigma²) = 80 > 1",
                         "noise swamps the trace"]),
        ("paper-anti", ["noise swamps the trace"]),
        ("gnorm", []),
        (BASELINE, []),
    ],
)  # fmt: skip
def test_warnings_of_settings(digits, name, starts, tmp_path):
    regulariser = by_name()[name].classifier.regulariser
    found = fitted(digits, tmp_path, regulariser=regulariser, epochs=1).warnings
    assert len(found) == len(starts)
    assert all(line.startswith(start) for line, start in zip(found, starts, strict=True))


class Stop(Exception):
    """Ends a stage in its middle."""


def runs(stage, config, *inputs, folder):
    """Runs a stage in a folder; returns its run."""
    run = Untracked()
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    body = getattr(stage, stage.__name__.rpartition(".")[2])
    body(config, *inputs, output=folder / "out", work=folder / "work", run=run)
    return run


def test_an_interrupted_training_goes_on_to_the_same_weights(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_S", 0.0)
    whole = runs(classify, QUICK, digits, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "probe", stopping(fitting.probe, 3))
        with pytest.raises(Stop):
            runs(classify, QUICK, digits, folder=tmp_path / "parts")
    assert Checkpoints(tmp_path / "parts" / "work" / loop.CHECKPOINTS).newest()[0] == 2
    again = runs(classify, QUICK, digits, folder=tmp_path / "parts")
    one, other = ([row["metrics"] for row in run.rows if row["metrics"]] for run in (whole, again))
    assert one == other and len(one) == QUICK.epochs
    one, other = ((tmp_path / k / "out" / fitting.MODEL).read_bytes() for k in ("whole", "parts"))
    assert one == other


def test_an_interrupted_flow_goes_on_to_the_same_weights(digits, home, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_S", 0.0)
    whole = runs(flow, FAST, digits, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", stopping(Trainer.validate, 3))
        with pytest.raises(Stop):
            runs(flow, FAST, digits, folder=tmp_path / "parts")
    assert Checkpoints(tmp_path / "parts" / "work" / loop.CHECKPOINTS).newest()[0] > 0
    parts = runs(flow, FAST, digits, folder=tmp_path / "parts")
    logged = [[row["step"] for row in run.rows if row["metrics"]] for run in (whole, parts)]
    assert logged[0] == logged[1]
    one, other = (
        (tmp_path / k / "out" / "checkpoint" / "ema.safetensors").read_bytes()
        for k in ("whole", "parts")
    )
    assert one == other


def test_a_flow_of_a_class_goes_on_from_that_of_all_rows(digits, home, tmp_path):
    runs(flow, FAST, digits, folder=tmp_path / "whole")
    still = FAST.training.changed(train={"lr": 1e-12})
    config = FAST.changed(label=3, training=still)
    runs(flow, config, digits, tmp_path / "whole" / "out", folder=tmp_path / "class")
    runs(flow, config, digits, folder=tmp_path / "alone")
    whole, trained, alone = (
        load(tmp_path / name / "out" / "checkpoint") for name in ("whole", "class", "alone")
    )
    x = unit_rows(Dataset(digits).split("test"))[:20]
    torch.testing.assert_close(trained.log_prob(x), whole.log_prob(x), rtol=1e-4, atol=1e-4)
    assert (alone.log_prob(x) - whole.log_prob(x)).abs().max() > 1


def test_a_flow_is_trained_where_checkpoints_go_to_a_storage(digits, home, tmp_path, monkeypatch):
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/bucket")
    monkeypatch.setenv(environment.LOOPBACK_ALONE, "0")
    monkeypatch.setattr(loop, "SAVE_S", 0.0)
    folder = home / "work" / "flow" / "key"
    runs(flow, FAST, digits, folder=folder)
    assert (folder / "out" / "checkpoint" / "ema.safetensors").exists()
    assert list((tmp_path / "bucket").rglob("*"))


def stopping(function, count):
    """Returns a function that stops at that call."""
    calls = []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == count:
            raise Stop
        return function(*arguments, **options)

    return stopped


def test_held_out_points_are_rows_of_their_split(digits, tmp_path):
    save(dense((64,), generator=torch.Generator()), tmp_path / "flow" / "checkpoint")
    run, output = Untracked(), tmp_path / "reference"
    output.mkdir()
    trained = [tmp_path / "flow"]
    reference.reference(
        MeasureConfig(points=50), digits, trained, output=output, work=tmp_path, run=run
    )
    assert run.metrics["reference/points"] == 50 and "reference/accuracy" not in run.metrics
    dataset = Dataset(digits)
    held = Held(QUICK, dataset, output, "validation")
    assert held.points.clean.equal(unit_rows(dataset.split("validation"))[:MOST])
    found = held.measure(fitted(digits, tmp_path / "work", epochs=1).network)
    assert found.keys() == {"accuracy", "A2", "dsm_residual"}


@pytest.fixture(scope="module")
def subject():
    """The Bayes classifier of two Gaussians, beside their exact scores."""
    width, sigma = 16, 0.1
    draws = torch.Generator().manual_seed(0)
    means = torch.rand(2, width, generator=draws)
    labels = torch.arange(300) % 2
    noise = torch.randn(300, width, generator=draws)
    points = Points(means[labels] + 0.05 * torch.randn(300, width, generator=draws), noise, sigma,
                    labels)  # fmt: skip
    variance = torch.full((1,), 0.05**2 + sigma**2)
    exact = Reference([GaussianMixture(torch.ones(1), mean[None], variance) for mean in means])

    def bayes(x):
        return -(x.unsqueeze(1) - means).square().sum(2) / (2 * variance)

    blind = {"gaussian": pooled(points.clean, sigma), "flow": exact.densities[0]}
    wrong = lambda x: bayes(1 - x)  # noqa: E731
    anew = {"last": [bayes], "all": [wrong]}
    return Subject(bayes, bayes, bayes, (4, 4), points, exact.at(points.noisy), exact, blind, anew)


MEASURE = MeasureConfig(points=300, samples=20, ascent=50, rate=1e-3, estimators=True)


def test_the_measurement_of_a_perfect_density(subject):
    numbers = measure(MEASURE, subject)
    assert all(np.isfinite(value).all() for value in numbers.values())
    for name in ("A1", "A2", "A3", "accuracy"):
        assert numbers[name] == pytest.approx(1, abs=1e-4)
    assert numbers["relF"] < 1e-6 and abs(numbers["A1/shuffled"]) < 0.2
    assert numbers["trace"] == pytest.approx(-16 / 0.0125, rel=1e-4)
    assert numbers["GAN-test"] == 1 and numbers["PP/own/centred"] > numbers["PP/own/random"]
    assert numbers["change/posterior"] == 0 and numbers["change/same"] == 1
    assert numbers["gradients"].shape == (2, 16) and numbers["samples"].shape == (20, 16)


def test_colours_are_perturbed_by_their_deviation_too(subject):
    grey, coloured = (measure(MEASURE, replace(subject, shape=s)) for s in ((4, 4), (2, 2, 4)))
    assert {f"PP/{judge}/deviation" for judge in ("own", "base", "other")} <= (
        coloured.keys() - grey.keys()
    )
    assert 0 < coloured["PP/own/deviation"] <= 1


def test_known_metrics_of_a_quadratic_logit(subject):
    """f = −‖x − m‖² / 2s²: infidelity E (‖u‖² / 2s²)² for u of deviation 0.1 and D = 16."""
    numbers = measure(MEASURE, subject)
    assert numbers["infidelity"] == pytest.approx(16 * 18 * (1e-2 / 0.025) ** 2, rel=0.05)
    assert 0 < numbers["infidelity/relative"] < 1 and numbers["sensitivity"] > 0
    assert all(0 < numbers[name] <= 1 for name in ("ROAD/most", "ROAD/least", "IROF"))
    assert numbers["randomised/last"] == pytest.approx(1)
    assert abs(numbers["randomised/all"]) < 0.5


def test_a_shift_stays_when_parameters_are_drawn_anew(subject):
    shift = ShiftConfig(name="quadratic", size=1e6)
    numbers = measure(MEASURE.model_copy(update={"shift": shift}), subject)
    assert numbers["randomised/all"] == pytest.approx(1, abs=0.01)


def test_a_linear_logit_has_neither_infidelity_nor_sensitivity():
    draws = partial(generator, 0)
    w = torch.randn(2, 16, generator=draws("w"))
    x, labels = torch.rand(50, 16, generator=draws("x")), torch.arange(50) % 2
    network, other = (lambda x, k=k: x @ (k * w).mT for k in (1, 2))
    metrics = known(network, x, labels, (16,), sigma=0.1, randomised={"all": [other]}, draws=draws)
    assert metrics == pytest.approx(
        {"infidelity": 0, "infidelity/relative": 0, "sensitivity": 0, "randomised/all": 1},
        abs=1e-6,
    )


def test_every_metric_is_documented(subject):
    found = measure(MEASURE, replace(subject, shape=(2, 2, 4)))
    found = {name: one for name, one in found.items() if isinstance(one, float)}
    (first, *_) = study(**dict.fromkeys((BASELINE, *BLIND.values()), found))[BASELINE].seeds
    numbers = first.numbers
    page = (Path(__file__).parents[2] / "docs" / "guide" / "results.md").read_text()
    table = page.partition("| metric |")[2].partition("| key of")[0]
    known = [name for row in table.splitlines()[2:] if row.startswith("|")
             for name in re.findall("`([^`]+)`", row.split("|")[1])]  # fmt: skip
    assert not [name for name in numbers if not any(fnmatch(name, k) for k in known)]
    assert not [k for k in known if not any(fnmatch(name, k) for name in numbers)]


def test_the_one_sided_estimator_deviates_by_its_linear_term(subject):
    """By 2 ‖g‖/σ, beside the 2 ‖H‖² of a quadratic logit with the control variate."""
    numbers = measure(MEASURE, subject)
    linear = 2 * math.sqrt(numbers["gradient/squared"]) / 0.01
    curved = math.sqrt(2 * 16) / 0.0125
    expected = math.hypot(linear, curved) / curved
    assert numbers["estimators/noise"] == pytest.approx(expected, rel=0.1)


def test_the_measurement_of_a_shifted_classifier(subject):
    config = MEASURE.model_copy(update={"shift": ShiftConfig(name="linear", size=1e3)})
    numbers = measure(config, subject)
    assert numbers["A3"] == pytest.approx(1, abs=1e-3) and abs(numbers["A1"]) < 0.5
    assert numbers["change/same"] == 1 and numbers["change/logit_gradient"] > 5
    assert numbers["change/posterior"] < 1e-3


@pytest.mark.parametrize("name", BLIND)
def test_a_class_blind_density_moves_a1_and_nothing_that_predicts(subject, name):
    numbers = measure(MEASURE.model_copy(update={"shift": ShiftConfig(name=name)}), subject)
    assert numbers["A3"] == pytest.approx(1, abs=1e-4) and numbers["change/same"] == 1
    assert numbers["relF/centred"] < 1e-4 < 0.1 < numbers["relF"]
    assert numbers["A1"] < 0.999 and numbers["change/posterior"] < 1e-4


def test_a1_is_told_over_that_of_class_blind_densities_of_the_same_seed():
    found = study(**{"blind-gaussian": {"A1": 0.85}, "blind-flow": {"A1": 0.87},
                     "score": {"A1": 0.88}, "baseline": {"A2": 0.1}})  # fmt: skip
    assert found["score"].values("A1/over gaussian") == pytest.approx([0.03] * 3)
    assert found["score"].values("A1/over flow") == pytest.approx([0.01] * 3)
    assert found["blind-gaussian"].values("A1/over gaussian") == pytest.approx([0] * 3)
    assert np.isnan(found["baseline"].values("A1/over gaussian")).all()


def measured(name, seed, numbers, **more):
    model = by_name(seed=seed)[name]
    return Measured(model, numbers, "", [], [{"probe/trace": -1e5}], {}, 64)


def study(**tables):
    """Returns lines of three seeds, from metrics by model."""
    found = [
        measured(name, seed, {k: v + 1e-4 * seed for k, v in numbers.items()})
        for seed in range(3)
        for name, numbers in tables.items()
    ]
    return lines(found)


def verdict(found, start):
    return next(claim for claim in found.claims if claim.claim.startswith(start))


QUALITY = [{"reference/accuracy": 0.97}]
FOUND = {
    "baseline": {"A1": 0.03, "A3": 0.5, "accuracy": 0.98, "gradient": 12.0, "PP/own/raw": 0.9,
                 "A1/centred": 0.05},
    "blind-gaussian": {"A1": 0.78, "A3": 0.5, "change/same": 1.0, "PP/own/raw": 0.6},
    "blind-flow": {"A1": 0.79, "A3": 0.5, "change/same": 1.0},
    "score": {"A1": 0.8, "A3": 0.65, "accuracy": 0.97, "gradient": 8.0, "relF-opt/centred": 0.5},
    "score-free": {"gradient": 50.0, "trace": -2625.0},
    "score-control": {"A1": 0.05, "A3": 0.64, "relF-opt/centred": 0.6},
    "centred": {"A3": -0.1, "A1/centred": 0.6},
    "collapse": {"accuracy": 0.2},
}  # fmt: skip


@pytest.mark.parametrize(
    "options, message",
    {
        "--custom.weight 1": "--custom.name: found none beside other options of it",
        "--custom.name gnorm": "--custom.weight: found 0, which adds nothing",
    }.items(),
)
def test_a_regulariser_of_ones_own_is_whole(home, ebflow, options, message):
    found = ebflow("run", "gradient-alignment", "--dry-run", *options.split())
    assert found.code == 2 and found.err[0].startswith(f"ebflow: {message}")


def test_planes_of_metrics_that_no_model_has_are_not_drawn():
    one = {"accuracy": 0.9, "gradient": 1.5, "PP/own/raw": 0.8}
    known = dict.fromkeys(("baseline", "blind-gaussian", "blind-flow"), one)
    assert not figures.figures(study(**known), (3,))
    both = study(**known | {"score": {"A3": 0.2, "gradient": 2.0}})
    assert list(figures.figures(both, (3,))) == ["trade-off"]
    assert len(figures.figures(both, (3,))["trade-off"][0].axes) == 1


def test_claims_are_judged_by_their_numbers():
    conclusion = verdicts.conclude(study(**FOUND), QUALITY)
    expected = {
        "Nearly all that score matching gains": ("holds", 0.75 / 0.77),
        "Score matching aligns logit-gradients": ("does not hold", 0.02),
        "And better than a class-blind flow": ("does not hold", 0.01),
        "In what no gauge reaches": ("holds", 0.15),
        "There it aligns more than": ("does not hold", 0.01),
        "There it comes nearer": ("holds", -0.1),
        "Score matching on the centred logit": ("does not hold", -0.6),
        "What it aligns instead": ("holds", 0.55),
        "Score matching costs no accuracy": ("holds", -0.01),
        "A class-blind Gaussian alone": ("holds", -0.3),
    }
    for start, (decided, value) in expected.items():
        claim = verdict(conclusion, start)
        assert claim.verdict == decided, claim
        assert claim.value == pytest.approx(value, rel=0.02, abs=1e-3), claim
    assert not [
        claim for claim in conclusion.claims if claim.claim.startswith("A pattern trained")
    ]
    passed = {check.check: check.passed for check in conclusion.checks}
    assert passed["A class-blind density on every logit leaves A3 and every prediction."]
    assert passed["The reference flows are good class densities."]
    known = {check.check: check.value for check in conclusion.checks}
    shrunken = next(value for check, value in known.items() if check.startswith("The stability"))
    assert shrunken == pytest.approx(0.16 * (1 + 2e-3 * 2625), rel=1e-3)
    collapsed = "Without noise and penalty score matching collapses onto the training points."
    assert known[collapsed] == pytest.approx(1e5 / 6400, rel=1e-2) and passed[collapsed]


def test_the_findings_are_three_sentences_with_the_measured_numbers():
    conclusion = verdicts.conclude(study(**FOUND), QUALITY)
    first, second, third = conclusion.findings
    assert "an A1 of 0.780, beside 0.800 of score matching and 0.030 of" in first
    assert "0.974" in first and "above a gradient-norm penalty" in second
    assert "(more than 0.05: does not hold)" in second and "A3 by -0.6;" in third
    assert len(conclusion.would_change) >= 3
    few = verdicts.conclude(study(**{k: FOUND[k] for k in ("baseline", "score")}), QUALITY)
    assert few.findings == ()


def test_a_check_that_fails_says_so():
    broken = study(**FOUND | {"blind-flow": {"A1": 0.79, "A3": 0.6, "change/same": 1.0}})
    checks = verdicts.conclude(broken, [*QUALITY, {"reference/accuracy": 0.2}]).checks
    failed = [check.check for check in checks if check.passed is False]
    assert len(failed) == 2 and failed[1].startswith("A class-blind density on every logit")


def test_one_seed_decides_nothing():
    names = ("baseline", "blind-gaussian", "score")
    found = lines([measured(name, 0, {"A1": k / 2}) for k, name in enumerate(names)])
    decided = {claim.verdict for claim in verdicts.conclude(found, []).claims}
    assert decided == {"not decided at this size"}


def test_a_seed_that_diverged_decides_nothing():
    found = dict(study(**FOUND))
    lost = replace(found["score"].seeds[0], numbers={}, diagnosis="diverged: loss")
    found["score"] = replace(found["score"], seeds=[lost, *found["score"].seeds[1:]])
    claim = verdict(verdicts.conclude(found, QUALITY), "In what no gauge reaches")
    assert claim.verdict == "not decided at this size" and claim.value is None


DRAWN = ("accuracy", "gradient", "trace", "A1", "A2", "DSM-cos", "PP/own/raw")
ALIKE = {**dict.fromkeys(DRAWN, 1.0), "A3": 0.6}


def disguised(**more):
    """Returns the published models and their controls, equal but for what is told of one."""
    names = ("paper-score", "paper-control", "paper-quiet", "code-score", "code-control")
    found = {name: ALIKE | more.get(name.replace("-", "_"), {}) for name in names}
    return study(baseline={"gradient": 10.0}, **found)


def test_the_disguise_is_equality_within_a_margin():
    starts = (
        "One-sided score matching with the λ",
        "And no better",
        "With the λ of the",
        "And A3",
    )

    def judged_with(**more):
        found = verdicts.conclude(disguised(**more), QUALITY)
        return [verdict(found, start).verdict for start in starts]

    assert judged_with() == ["holds"] * 4
    assert judged_with(code_control={"gradient": 1.2})[0] == "does not hold"
    assert judged_with(code_control={"A3": 0.5})[1] == "does not hold"
    assert judged_with(paper_control={"gradient": 3.0})[2] == "does not hold"
    assert judged_with(paper_control={"A3": 0.62})[3] != "holds"


def test_the_order_of_these_models_is_judged_over_seeds():
    names = [m.name for m in models(AlignmentConfig()) if m.shift.name == "none"]
    places = {name: k / 10 for k, name in enumerate(names) if name != "collapse"}

    def claim(count, sign=1):
        some = {name: {"A3": k, "PP/own/centred": sign * k**2}
                for name, k in list(places.items())[:count]}  # fmt: skip
        found = verdicts.conclude(study(**some), QUALITY)
        return verdict(found, "Among the models of this study pixel")

    assert claim(12).value == pytest.approx(1) and claim(12).verdict == "holds"
    assert claim(12, -1).verdict == "does not hold"
    with pytest.raises(StopIteration):  # not asked of so few
        claim(comparisons.FEWEST - 1)


def orderly(names):
    """Returns lines of trainings with A3 and two metrics in its order, and a class-blind one."""
    found = {
        name: {"A3": k, "A1": -k, "IROF": k**2, "sensitivity": -k} for k, name in enumerate(names)
    }
    return study(**found, **{"blind-gaussian": {"A1": 1.0, "A3": 0.0, "IROF": -0.25}})


def test_metrics_are_told_by_their_order_the_better_the_larger():
    names = [m.name for m in models(AlignmentConfig()) if m.shift.name == "none"]
    entries = judged.entries(judged.told(orderly(names)))
    assert entries.keys() == {column.metric for column, _ in judged.JUDGES}
    assert entries["IROF"]["A3"]["value"] == pytest.approx(1)
    assert entries["IROF"]["A1"]["value"] == pytest.approx(-1)
    assert entries["sensitivity"]["A3"]["value"] == pytest.approx(1)  # less of it is better
    assert entries["IROF"]["gaussian"]["value"] == pytest.approx(-0.25)
    assert entries["ROAD/most"]["A3"] is None
    assert judged.told(orderly(names[: comparisons.FEWEST - 1])) == {}


def test_the_order_is_told_on_the_page():
    names = [m.name for m in models(AlignmentConfig()) if m.shift.name == "none"]
    found, few = orderly(names), orderly(names[:3])
    whole, orders = judged.tables(found, judged.told(found))
    assert len(whole.rows) == len(names) + 1 and whole.headings == ("model", "sensitivity", "IROF")
    assert {len(row) for row in orders.rows} == {len(orders.headings)}
    irof = next(row for row in orders.rows if row[0] == "IROF (more is better)")
    assert irof[1:3] == ("-1.00 ± 0.00", "1.00 ± 0.00")
    assert irof[4] == "-0.250 ± 0.000"
    assert len(judged.tables(few, judged.told(few))) == 1


def test_a_metric_without_an_order_has_no_correlation():
    """It is 1 of all trainings."""
    names = [m.name for m in models(AlignmentConfig()) if m.shift.name == "none"]
    found = study(**{name: {"A3": k, "A1": k} for k, name in enumerate(names)})
    flat = [replace(one, numbers={**one.numbers, "IROF": 1.0})
            for line in found.values() for one in line.seeds]  # fmt: skip
    assert comparisons.order("A3", "IROF").found(lines(flat)) is None
    assert comparisons.order("A3", "A1").found(lines(flat)).value == pytest.approx(1)


def test_an_order_has_a_value_a_seed():
    """Two seeds of one order and one of its reverse: 1, 1, −1."""
    names = [m.name for m in models(AlignmentConfig()) if m.shift.name == "none"]
    found = dict(orderly(names))
    for name, line in found.items():
        last = line.seeds[-1]
        turned = {**last.numbers, "IROF": -last.numbers["IROF"]}
        found[name] = replace(line, seeds=[*line.seeds[:-1], replace(last, numbers=turned)])
    number = comparisons.order("A3", "IROF")
    assert number.values(found) == pytest.approx([1, 1, -1])
    assert number.found(found).df == 2


def test_an_order_is_the_rank_correlation():
    names = [m.name for m in models(AlignmentConfig()) if m.shift.name == "none"]
    draws = np.random.default_rng(0).normal(size=(len(names), 2)).round(1)
    found = study(**{n: {"A3": a, "IROF": b} for n, (a, b) in zip(names, draws, strict=True)})
    expected = stats.spearmanr(draws).statistic
    assert comparisons.order("A3", "IROF").values(found) == pytest.approx([expected] * 3)


def test_shifts_and_collapses_are_not_ordered():
    names = [m.name for m in models(AlignmentConfig())]
    found = dict(study(**{name: {"A3": k} for k, name in enumerate(names)}))
    collapsed = [replace(one, diagnosis="collapse: …") for one in found["collapse"].seeds]
    found["collapse"] = replace(found["collapse"], seeds=collapsed)
    counted = replace(comparisons.order("A3", "A1"), compute=lambda *taken: len(taken))
    sound = [m for m in models(AlignmentConfig()) if m.shift.name == "none"]
    assert counted.values(found) == len(sound) - 1


def test_score_matching_in_disguise_is_a_gradient_norm():
    kinds = {name: penalised(one.classifier.regulariser) for name, one in by_name().items()}
    disguised = ("paper-score", "paper-quiet", "code-score", "paper-control", "gnorm")
    assert {kinds[name] for name in disguised} == {("gnorm", False)}
    assert kinds["score"] == kinds["score-free"] == kinds["collapse"] == ("score", False)
    assert kinds["centred"] == ("score", True) and kinds["centred-control"] == ("gnorm", True)
    assert kinds["paper-anti"] == ("anti", False) and kinds["baseline"] == ("none", False)


def explaining(off):
    """Returns what off-manifold robustness explains of A3 more than the kind of penalty does."""
    names = [m.name for m in models(AlignmentConfig()) if m.shift.name == "none"]
    penalties = [by_name()[name].classifier.regulariser for name in names]
    kinds = [penalised(one) for one in penalties]
    rank = {name: k for k, name in enumerate(sorted(names, key=lambda n: kinds[names.index(n)]))}
    found = study(**{name: {"A3": rank[name], "off-manifold": off(rank[name])} for name in names})
    claim = verdict(verdicts.conclude(found, QUALITY), "Among them robustness off the manifold e")
    a3, kinds = np.array([rank[name] for name in names]), np.array([str(kind) for kind in kinds])
    inside = sum(len(a3[kinds == k]) * a3[kinds == k].var() for k in set(kinds))
    mean_square = inside / (len(names) - len(set(kinds)))
    return claim, 1 - mean_square / a3.var(ddof=1)


def test_robustness_and_the_kind_of_regulariser_are_compared_by_what_they_explain():
    """By kind A3 is ordered as far as groups go; by robustness wholly, or not at all."""
    claim, by_kind = explaining(lambda rank: rank**3)
    assert 0.8 < by_kind < 1 and claim.value == pytest.approx(1 - by_kind)
    claim, _ = explaining(lambda rank: math.sin(100 * rank))
    assert claim.value < -0.5 and claim.verdict == "does not hold"


def test_intervals_allow_for_the_overlap_of_splits():
    rows = [measured(name, seed, {"A3": k + seed**2})
            for seed in range(3) for k, name in enumerate(("baseline", "score"))]  # fmt: skip
    apart, alike = lines(rows), lines(rows, overlap=0.2)
    wider = math.sqrt(1 + 3 * 0.2)
    (value, _, high), found = apart["score"].interval("A3"), alike["score"].interval("A3")
    assert found.value == value and found.high - value == pytest.approx(wider * (high - value))
    number = comparisons.of("A3", "score", "A3")
    assert number.found(alike).se == pytest.approx(wider * number.found(apart).se)


def test_points_are_drawn_for_every_seed_where_there_are_more(digits):
    dataset = Dataset(digits)
    first, again, other = (references.points(dataset, "test", 50, 0.1, k) for k in (0, 0, 1))
    rows = unit_rows(dataset.split("test"))
    assert first.clean.equal(again.clean) and not first.clean.equal(other.clean)
    assert references.points(dataset, "test", 1000, 0.1, 0).clean.equal(rows)
    places = [(rows == row).all(1).nonzero()[0].item() for row in first.clean]
    assert places == sorted(places) and len(set(places)) == 50
    assert dataset.split("test").labels()[places].equal(first.labels)


def test_the_page_has_density_ratios_and_no_column_that_nobody_was_measured_of():
    found = study(
        **{name: {"A1": 0.5, "mean log ratio/0.3": -1.5} for name in ("baseline", "score")}
    )
    whole = {table.title: table for table in tables(found, {}, {})}
    assert whole["Models"].headings == ("model", "A1")
    ratios = whole["Density ratios of noisy and clean test images"]
    assert ratios.headings == ("model", "mean log ratio, 0.3")
    assert ratios.rows[0] == ("baseline", "-1.50 ± 0.00")


def test_an_entry_is_json_without_nan():
    found = study(baseline={"A1": 0.1})["baseline"]
    found = replace(found, seeds=[*found.seeds, measured("baseline", 3, {})])
    stored = json.loads(json.dumps(entry(found), allow_nan=False))
    assert stored["metrics"]["A1"] == {"value": None, "low": None, "high": None}
    assert stored["seeds"] == 4 and stored["regulariser"] == "none"


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """Digits 0 and 1 as a file of the user's, with their classes."""
    found = load_digits(n_class=2)
    pixels = pa.array(found.images.astype(np.uint8).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(pixels, 64)
    metadata = {"shape": json.dumps([8, 8]), "levels": json.dumps(17)}
    path = tmp_path_factory.mktemp("two") / "zero-one.parquet"
    made = pa.table({"image": column, "kind": found.target}).replace_schema_metadata(metadata)
    pq.write_table(made, path)
    return path


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), r"zero-one.parquet, column label: no such column, .*--data.label"),
        (("--data.label", "image"), r"column image: found fixed_size_list.*integer classes"),
        (("--data.label", "kind", "--models", "x"), r"--models: found 'x', expected some of"),
        (("--data.label", "kind", "--data.rows", "50"), r"--data.rows: found 40 training rows"),
    ],
)
def test_bad_input_is_told_in_one_line(home, ebflow, two_classes, options, line):
    found = ebflow("run", "gradient-alignment", "--data.source", two_classes, *options)
    assert found.code == 2 and len(found.err) == 1 and not home.exists()
    assert re.search(line, found.err[0]), found.err[0]


def test_images_are_needed_for_convolutions(home, ebflow, tmp_path):
    table = pa.table({"a": np.linspace(0, 1, 300), "b": np.linspace(1, 0, 300),
                      "label": np.arange(300) % 2})  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet")
    found = ebflow("run", "gradient-alignment", "--data.source", tmp_path / "rows.parquet",
                   "--net", "cnn")  # fmt: skip
    assert found.code == 2 and "--net: found cnn for examples of shape (2,)" in found.err[0]


def test_a_dry_run_at_full_scale_lists_the_stages(home, ebflow):
    found = ebflow("run", "gradient-alignment", "--scale", "full", "--dry-run")
    assert found.code == 0 and not home.exists()
    stages = ("prepare", "flow", "reference", "blind", "classify", "measure", "align")
    assert [line.split() for line in found.out[-7:]] == [[stage, "run"] for stage in stages]


@pytest.mark.system
def test_a_real_run_and_the_same_again(home, ebflow, without_ray, two_classes):
    words = ("run", "gradient-alignment", "--scale", "smoke", "--seeds", "2",
             "--data.source", two_classes, "--data.label", "kind",
             "--reference.conditional", "True")  # fmt: skip
    found = ebflow(*words)
    assert found.code == 0 and not found.err, found.err
    printed, folder = found.text, Path("runs/gradient-alignment/alignment")
    summary = json.loads((folder / "summary.json").read_text())
    names = ["baseline", "blind-gaussian", "blind-flow", "score", "fool-shift"]
    assert [model["model"] for model in summary["models"]] == names
    for model in summary["models"]:
        for name in ("accuracy", "gradient", "trace", "A1", "A1/over flow", "A3", "relF/centred"):
            found = model["metrics"][name]
            assert found["low"] <= found["value"] <= found["high"]
    assert summary["reference"]["reference/accuracy"]["value"] > 0.9
    checks = {check["check"]: check["passed"] for check in summary["checks"]}
    assert checks["A class-blind density on every logit leaves A3 and every prediction."]
    share = summary["claims"][0]
    assert share["verdict"] in printed
    assert share["low"] <= share["value"] <= share["high"] and share["power"] is not None
    html = (folder / "report.html").read_text()
    assert share["claim"] in html and html.count("data:image/png") >= 5
    assert 1 <= len(summary["findings"]) <= 3
    assert {path.stem for path in (folder / "figures").iterdir()} >= {"gradients", "samples"}
    assert "classify 0 ran, 6 cached" in ebflow(*words).text


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_targets_on_digits(tmp_path):
    """Seed 0 and 1 of the recipe, its control, the fooled baseline and the collapse."""
    store = Store(tmp_path)
    names = ("score", "score-free", "score-control", "fool-shift", "collapse")
    process = store.start("run", "gradient-alignment", "--seeds", 2, "--models", *names)
    out, err = process.communicate()
    assert process.returncode == 0, err + out
    folder = tmp_path / "runs" / "gradient-alignment" / "alignment"
    summary = json.loads((folder / "summary.json").read_text())
    found = {model["model"]: model["metrics"] for model in summary["models"]}
    diagnoses = {model["model"]: model["diagnosis"] for model in summary["models"]}
    value = lambda model, name: found[model][name]["value"]  # noqa: E731
    assert value("score", "accuracy") >= 0.95 and value("score", "A1") >= 0.7
    assert value("baseline", "A1") <= 0.1
    law = 1 / (1 - 2e-3 * value("score-free", "trace"))
    assert value("score", "gradient") / value("score-free", "gradient") == pytest.approx(
        law, rel=0.05
    )
    assert abs(value("fool-shift", "A3") - value("baseline", "A3")) <= 1e-3
    assert value("fool-shift", "change/same") == 1 and abs(value("fool-shift", "A1")) < 0.05
    assert diagnoses["collapse"].startswith("collapse: mean trace")
    assert summary["reference"]["reference/accuracy"]["value"] >= 0.9
    assert regularisers.smallest_trace(64, 0.1) < value("score", "trace") < 0
