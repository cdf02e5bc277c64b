"""Claims, checks and findings, judged by given numbers."""

from dataclasses import replace

import pytest

from pipelines.gradient_alignment import verdicts
from pipelines.gradient_alignment.over_seeds import lines

from .cases import QUALITY, measured, study, verdict

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
