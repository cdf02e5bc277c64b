"""Claims, checks and findings of studies with chosen numbers, and their tables and figures."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from pipelines.gradient_alignment import questions
from pipelines.gradient_alignment.align import entry
from pipelines.gradient_alignment.config import SIGMAS
from pipelines.gradient_alignment.figures import figures
from pipelines.gradient_alignment.questions import conclude
from pipelines.gradient_alignment.tables import published, tables
from pipelines.store.files import write_json

from .cases import by_name, studied

QUALITY = [{"reference/accuracy": 0.97}]

NUMBERS = {
    "baseline": {"A1": 0.03, "A3": 0.5, "accuracy": 0.98, "gradient": 12.0, "PP/own/raw": 0.9,
                 "A1/centred": 0.05},
    "blind-gaussian": {"A1": 0.78, "A3": 0.5, "change/same": 1.0, "PP/own/raw": 0.6},
    "blind-flow": {"A1": 0.79, "A3": 0.5, "change/same": 1.0},
    "score": {"A1": 0.8, "A3": 0.65, "accuracy": 0.97, "gradient": 8.0, "relF-opt/centred": 0.5},
    "score-free": {"gradient": 50.0, "trace": -2625.0},
    "score-control": {"A1": 0.05, "A3": 0.64, "relF-opt/centred": 0.6},
    "centred": {"A3": -0.1, "A1/centred": 0.6},
    "collapse": {"accuracy": 0.2, "trace/training": -1e5},
}  # fmt: skip

TRAINED = [
    name for name, model in by_name().items() if model.shift == "none" and model.cell is None
]

PIXELS = "PP/own/raw"


def claim_of(conclusion, start):
    """Returns the claim that begins so."""
    return next(claim for claim in conclusion.claims if claim.claim.startswith(start))


@pytest.mark.parametrize("start, verdict, value", [
    ("Nearly all that score matching gains", "holds", 0.75 / 0.77),
    ("Score matching aligns logit-gradients", "does not hold", 0.02),
    ("And better than a class-blind flow", "does not hold", 0.01),
    ("In what no gauge reaches", "holds", 0.15),
    ("There it aligns more than", "does not hold", 0.01),
    ("There it comes nearer", "holds", -0.1),
    ("Score matching on the centred logit", "does not hold", -0.6),
    ("What it aligns instead", "holds", 0.55),
    ("Score matching costs no accuracy", "holds", -0.01),
    ("A class-blind Gaussian alone", "holds", -0.3),
])  # fmt: skip
def test_claims_are_judged_by_their_numbers(start, verdict, value):
    claim = claim_of(conclude(studied(seeds=12, **NUMBERS), QUALITY), start)
    assert claim.verdict == verdict
    assert claim.value == pytest.approx(value, rel=0.02, abs=1e-3)


def test_checks_are_judged_by_the_worst_seed():
    checks = {one.check: one for one in conclude(studied(**NUMBERS), QUALITY).checks}
    assert checks["A class-blind density on every logit leaves A3 and every prediction."].passed
    assert checks["The reference flows are good class densities."].passed
    law = next(one.value for check, one in checks.items() if check.startswith("The stability"))
    assert law == pytest.approx(0.16 * (1 + 2e-3 * 2625), rel=1e-3)
    depth = checks["Without noise and penalty score matching collapses onto the training points."]
    assert depth.value == pytest.approx(1e5 / 6400, rel=1e-2) and depth.passed


def test_a_check_that_fails_is_reported():
    broken = NUMBERS | {"blind-flow": {"A1": 0.79, "A3": 0.6, "change/same": 1.0}}
    checks = conclude(studied(**broken), [*QUALITY, {"reference/accuracy": 0.2}]).checks
    failed = [check.check for check in checks if check.passed is False]
    assert len(failed) == 2 and failed[1].startswith("A class-blind density on every logit")


def test_the_findings_are_three_sentences_with_the_measured_numbers():
    conclusion = conclude(studied(seeds=12, **NUMBERS), QUALITY)
    first, second, third = conclusion.findings
    assert "an A1 of 0.781, beside 0.801 of score matching and 0.031 of" in first
    assert "0.974" in first and "above a gradient-norm penalty" in second
    assert "(more than 0.05: does not hold)" in second and "A3 by -0.6;" in third
    assert len(conclusion.would_change) >= 3
    few = conclude(studied(**{name: NUMBERS[name] for name in ("baseline", "score")}), QUALITY)
    assert few.findings == ()


def test_one_seed_decides_nothing():
    claims = conclude(studied(seeds=1, **NUMBERS), []).claims
    assert {claim.verdict for claim in claims} == {"not decided at this size"}


def test_a_seed_that_diverged_decides_nothing():
    study = studied(**NUMBERS, lost=[("score", 0)], diagnoses={"score": "diverged: loss"})
    claim = claim_of(conclude(study, QUALITY), "In what no gauge reaches")
    assert claim.verdict == "not decided at this size" and claim.value is None


def disguised(**more):
    """Returns verdicts on the published models, equal to their controls but for some numbers."""
    alike = {"gradient": 1.0, "A1": 1.0, "A3": 0.6}
    names = ("paper-score", "paper-control", "code-score", "code-control")
    numbers = {name: alike | more.get(name.replace("-", "_"), {}) for name in names}
    conclusion = conclude(studied(seeds=12, baseline={"gradient": 10.0}, **numbers), QUALITY)
    starts = ("One-sided score matching with", "And no better", "With the λ of the", "And A3")
    return [claim_of(conclusion, start).verdict for start in starts]


def test_the_disguise_is_equality_within_a_margin():
    assert disguised() == ["holds"] * 4
    assert disguised(code_control={"gradient": 1.2})[0] == "does not hold"
    assert disguised(code_control={"A3": 0.5})[1] == "does not hold"
    assert disguised(paper_control={"gradient": 3.0})[2] == "does not hold"
    assert disguised(paper_control={"A3": 0.62})[3] != "holds"


@pytest.mark.parametrize("sign, verdict", [(1, "holds"), (-1, "does not hold")])
def test_the_order_of_the_trainings_is_judged_over_seeds(sign, verdict):
    numbers = {name: {"A3": k, "PP/own/centred": sign * k**2} for k, name in enumerate(TRAINED)}
    claim = claim_of(
        conclude(studied(seeds=12, **numbers), QUALITY), "Among the models of this study pixel"
    )
    assert claim.value == pytest.approx(sign) and claim.verdict == verdict


def test_an_order_is_the_rank_correlation_of_sound_trainings():
    numbers = np.random.default_rng(0).normal(size=(len(TRAINED), 2)).round(1)
    rows = {name: {"A3": a, PIXELS: b} for name, (a, b) in zip(TRAINED, numbers, strict=True)}
    shifts = {"fool-shift": {"A3": 9.0, PIXELS: -9.0}}
    sound = studied(**rows, **shifts, diagnoses={TRAINED[-1]: "collapse: …"})
    expected = stats.spearmanr(numbers[:-1]).statistic
    assert questions.order("A3", PIXELS).compute(sound) == pytest.approx([expected] * 3)


def test_an_order_needs_enough_trainings_and_unequal_numbers():
    few = studied(**{name: {"A3": 0.1} for name in TRAINED[: questions.FEWEST - 1]})
    assert questions.order("A3", PIXELS).values(few) is None
    flat = studied(seeds=1, **{name: {"A3": k, PIXELS: 1.0} for k, name in enumerate(TRAINED)})
    assert np.isnan(questions.order("A3", PIXELS).values(flat)).all()
    lost = studied(seeds=1, **{name: {"A3": k} for k, name in enumerate(TRAINED)})
    assert np.isnan(questions.order("A3", PIXELS).values(lost)).all()


def test_a1_is_compared_with_that_of_class_blind_densities_of_the_same_seed():
    study = studied(**{"blind-gaussian": {"A1": 0.85}, "blind-flow": {"A1": 0.87},
                       "score": {"A1": 0.88}, "baseline": {"A2": 0.1}})  # fmt: skip
    assert study.values("A1/over gaussian", "score") == pytest.approx([0.03] * 3)
    assert study.values("A1/over flow", "score") == pytest.approx([0.01] * 3)
    assert study.values("A1/over gaussian", "blind-gaussian") == pytest.approx([0] * 3)
    assert np.isnan(study.values("A1/over gaussian", "baseline")).all()


def test_intervals_allow_for_the_overlap_of_splits():
    apart, alike = (studied(baseline={"A3": 0.1}, overlap=overlap) for overlap in (0.0, 0.2))
    wider = math.sqrt(1 + 3 * 0.2)
    (value, _, high), other = (study.interval("A3", "baseline") for study in (apart, alike))
    assert other.value == value and other.high - value == pytest.approx(wider * (high - value))


def test_tables_have_no_column_that_no_model_has():
    numbers = {"A1": 0.5, "mean log ratio/0.3": -1.5}
    made = {table.title: table for table in tables(studied(baseline=numbers, score=numbers), {})}
    assert made["Models"].headings == ("model", "A1")
    ratios = made["Density ratios of noisy and clean test images"]
    assert ratios.headings == ("model", "mean log ratio, 0.3")
    assert ratios.rows[0] == ("baseline", "-1.50 ± 0.00")
    assert 0.3 in SIGMAS


def test_the_papers_table_is_beside_the_measured_models():
    measured = {"accuracy": 0.9, "GAN-test": 0.5}
    table = published(studied(baseline=measured, anti=measured))
    assert table.headings == ("method", "accuracy, paper (%)", "GAN-test, paper (%)", "model",
                              "accuracy", "GAN-test")  # fmt: skip
    assert [row[:4] for row in table.rows] == [
        ("baseline", "78.01", "59.47", "baseline"),
        ("anti-score-matching", "74.87", "16.40", "anti"),
    ]


@pytest.mark.parametrize(("same", "passed"), [(1.0, True), (0.99, False)])
def test_structure_is_free_if_no_prediction_changes(same, passed):
    numbers = NUMBERS | {"blind-gaussian": NUMBERS["blind-gaussian"] | {"change/same": same}}
    (check,) = (
        one
        for one in conclude(studied(**numbers), QUALITY).checks
        if one.check.startswith("Two classifiers")
    )
    assert check.passed is passed


def test_accuracy_that_follows_alignment_is_found():
    steps = np.linspace(0, 1, len(TRAINED))
    follows = {
        name: {"A1": step, "A3": step**2, "accuracy": step}
        for name, step in zip(TRAINED, steps, strict=True)
    }
    claims = conclude(studied(seeds=12, **follows), QUALITY).claims
    verdicts = {one.claim[:17]: one.verdict for one in claims if one.figure == "trade-off"}
    assert verdicts["Among them test a"] == verdicts["Nor does it follo"] == "does not hold"


def test_planes_of_metrics_that_no_model_has_are_not_drawn():
    one = {"accuracy": 0.9, "gradient": 1.5, "PP/own/raw": 0.8}
    numbers = dict.fromkeys(("baseline", "blind-gaussian", "blind-flow"), one)
    assert not figures(studied(**numbers), (3,))
    both = figures(studied(**numbers, score={"A3": 0.2, "gradient": 2.0}), (3,))
    assert list(both) == ["trade-off"] and len(both["trade-off"][0].axes) == 1


def test_the_page_has_figures_though_a_seed_of_the_baseline_diverged():
    lost = [(name, 0) for name in ("baseline", "blind-gaussian", "blind-flow")]
    made = figures(studied(**NUMBERS, lost=lost), (3,))
    assert list(made) == ["gauge", "trade-off"]
    for figure, _ in made.values():
        figure.canvas.draw()


FOOLED = {
    "baseline": {"A3": 0.5, "A3/shuffled": 0.0, "accuracy": 0.98},
    "fool-shift": {"A3": 0.5, "change/same": 1.0, "change/posterior": 1e-5,
                   "change/logit_gradient": 9.0, "change/loss_gradient": 1e-4,
                   "pattern/logit": 0.99},
    "fool-weights": {"pattern/logit": 0.95, "accuracy": 0.98},
    "fool-ripple": {"change/loss": 1e-3, "change/loss_gradient": 5.0, "pattern/loss": 0.95},
}  # fmt: skip


def test_fooled_classifiers_are_judged():
    conclusion = conclude(studied(**FOOLED), QUALITY)
    assert [one.passed for one in conclusion.checks[1:]] == [True] * 10
    conclusion = conclude(studied(seeds=12, **FOOLED), QUALITY)
    verdicts = [one.verdict for one in conclusion.claims if one.figure == "fooled"]
    assert verdicts == ["holds"] * 2
    dull = FOOLED | {"fool-ripple": FOOLED["fool-ripple"] | {"change/loss_gradient": 0.1}}
    failed = [one.check for one in conclude(studied(**dull), QUALITY).checks if not one.passed]
    assert failed == ["But they change the gradients of the loss."]


def test_pictures_of_fooled_classifiers():
    rows = np.random.default_rng(0).normal(size=(8, 64))
    arrays = dict.fromkeys(("images", "gradients", "centred", "loss", "samples"), rows)
    arrays |= {"predicted": np.arange(8), "probability": np.linspace(0.3, 1, 8)}
    numbers = {name: one | {"samples/log density": 0.1} for name, one in FOOLED.items()}
    made = figures(studied(**numbers, arrays=arrays), (8, 8))
    for name in ("fooled", "rippled"):
        figure, _ = made[name]
        assert len(figure.axes) == 4 * 7, "names and six images; image, baseline and two models"
        assert [axis.get_title() for axis in figure.axes[8:10]] == [
            "says 0 (30.0%)",
            "says 1 (40.0%)",
        ]
        figure.canvas.draw()
    assert "fooled" not in figures(studied(baseline={"A3": 0.1}, arrays=arrays), (3,))


def test_curves_and_density_ratios_are_drawn():
    ratios = {f"{kind} ratio/{s:g}": s for kind in ("log mean", "mean log") for s in SIGMAS}
    curves = {f"curve/{name}": np.linspace(1, 0.1, 25)
              for name in ("own/raw", "other/raw", "own/centred")}  # fmt: skip
    made = figures(studied(baseline=ratios, score=ratios, arrays=curves), (8, 8))
    assert list(made) == ["density-ratio", "perturbation"]
    for name, count in (("density-ratio", 3), ("perturbation", 2)):
        figure, _ = made[name]
        figure.canvas.draw()
        assert all(len(axis.lines) == count for axis in figure.axes)


def test_an_entry_is_json_without_nan(tmp_path):
    study = studied(seeds=4, baseline={"A1": 0.1}, lost=[("baseline", 3)])
    write_json(tmp_path / "entry.json", entry(study, "baseline"))
    stored = json.loads((tmp_path / "entry.json").read_text())
    assert stored["metrics"]["A1"] == {"value": None, "low": None, "high": None}
    assert stored["seeds"] == 4 and stored["regularizer"] == "none"
