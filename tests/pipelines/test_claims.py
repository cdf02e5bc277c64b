"""Claims: how they are judged, told on a terminal, and shown on a page."""

import base64
import io
import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from pipelines.paper.config import PaperConfig
from pipelines.reporting import claims
from pipelines.reporting.result import Result, Table, markdown, plots, show
from pipelines.reporting.statistics import above, below, student, within
from pipelines.reporting.style import panels
from pipelines.reporting.terminal import terminal

SLOPE = claims.Claim(
    "It grows.", "holds", "slope", 2.05, 1.93, 2.17, figure="scaling", note="expected 2"
)
UNDECIDED = claims.Claim("It falls.", "not decided at this size", "slope")


def test_the_number_is_told_with_its_interval():
    assert SLOPE.estimate == "2.05 [1.93, 2.17]"
    assert UNDECIDED.estimate == ""
    assert claims.Claim("It grows.", "holds", "slope", 2.05).estimate == "2.05"


@pytest.mark.parametrize("numbers, expected", [
    ((3.7e-16, -0.3, 0.45), "0.00 [-0.30, 0.45]"),
    ((-1e-9, -0.3, 0.45), "0.00 [-0.30, 0.45]"),
    ((1.7, 1.4, 2.2), "1.70 [1.40, 2.20]"),
    ((2080.0, 1970.0, 2200.0), "2,080 [1,970, 2,200]"),
    ((1.45e-4, 8.62e-5, 2.05e-4), "0.00015 [0.00009, 0.00020]"),
    ((3.97e-8, -4.57e-8, 1.25e-7), "4.0e-08 [-4.6e-08, 1.2e-07]"),
    ((0.465, 0.465, 0.465), "0.465"),
])  # fmt: skip
def test_digits_beyond_the_interval_are_not_told(numbers, expected):
    assert claims.Claim("It grows.", "holds", "slope", *numbers).estimate == expected


def summary_of(conclusion):
    """Returns the summary of a run with a conclusion."""
    named = {"name": "mine", "stages": {}, "files": {}}
    return {**Result(title="A study", conclusion=conclusion).summary(), **named}


def test_a_terminal_shows_claims_numbers_and_verdicts():
    console = terminal(width=80, file=io.StringIO())
    long = claims.Claim("It stays as it was.", "holds", "a number whose name is long " * 3, 2.05)
    show(console, summary_of(claims.Conclusion((), (SLOPE, UNDECIDED, long), (), ())))
    text = console.file.getvalue()
    assert "It grows." in text and " 2.05 [1.93, 2.17]" in text and "not decided" in text
    assert "It stays as it was." in text and "…" not in text


NEAR = claims.Question("It stays.", "change", within(0.5), note="fixed before", units="nats")
UP = claims.Question("It grows.", "slope", above(0.1), figure="scaling")


def verdicts(*measured):
    return [claim.verdict for claim in claims.decide(measured)]


def test_only_an_interval_inside_or_outside_decides():
    small, large, wide = student([0.1, -0.1, 0.05]), student([2.0, 2.1, 2.2]), student([-4.0, 5.0])
    assert verdicts((NEAR, small)) == ["holds"]
    assert verdicts((NEAR, large)) == ["does not hold"]
    assert verdicts((NEAR, wide), (UP, wide)) == ["not decided at this size"] * 2
    assert verdicts((UP, large)) == ["holds"]


def test_many_claims_are_harder_to_decide():
    barely = student([0.5, 1.0, 1.5, 1.2])
    assert verdicts((UP, barely)) == ["holds"]
    assert verdicts(*[(UP, barely)] * 10) == ["not decided at this size"] * 10
    assert claims.decide([(UP, barely)] * 10)[0].p > claims.LEVEL


def test_what_was_not_measured_is_not_decided_and_does_not_count():
    barely = student([0.5, 1.0, 1.5, 1.2])
    for missing in (None, student([3.0])):
        found = claims.decide([(UP, barely), *[(NEAR, missing)] * 20])
        assert found[0].verdict == "holds" and found[1].verdict == "not decided at this size"
        assert found[1].p is None and found[1].low is None


def test_a_claim_is_json():
    for found in claims.decide([(NEAR, student([0.1, 0.2, 0.3])), (UP, None)]):
        stored = json.loads(json.dumps(asdict(found), allow_nan=False))
        assert claims.Claim(**stored) == found
    (one,) = claims.decide([(NEAR, student([0.1, 0.2, 0.3]))])
    assert (one.expected, one.units) == ("-0.5 to 0.5", "nats")
    assert one.value == pytest.approx(0.2) and one.low < 0.1 and one.note == "fixed before"


def test_a_check_passes_where_it_should_be():
    def check(value):
        return claims.Check.of("Sums agree.", "gap", value, below(1e-3))

    assert [check(value).passed for value in (1e-4, 0.1)] == [True, False]
    assert check(None).passed is None and check(float("nan")).verdict == "not measured"
    assert replace(check(1.0), passed=None).verdict == "not judged at this size"
    assert check(0.1).expected == "less than 0.001"


@pytest.fixture
def conclusion():
    measured = [(NEAR, student([0.1, 0.2, 0.3])), (UP, None)]
    return claims.Conclusion(
        ("It is & stays so.",),
        tuple(claims.decide(measured)),
        (claims.Check("Sums agree.", "gap", 0.1, "less than 0.001", False),
         claims.Check("They commute.", "gap", 0.0, "less than 0.001", True)),
        ("More seeds.",),
    )  # fmt: skip


def test_a_conclusion_in_markdown(conclusion):
    text = markdown(json.loads(json.dumps(summary_of(conclusion))))
    assert text.startswith("It is & stays so.\n\n| claim |") and text.endswith("More seeds.")
    assert "| It stays. | change 0.20 [-0.05, 0.45] | -0.5 to 0.5 | holds |" in text


def test_a_terminal_shows_findings_claims_and_the_checks_that_failed(conclusion):
    console = terminal(width=90, file=io.StringIO())
    show(console, summary_of(conclusion))
    text = console.file.getvalue()
    assert "It is & stays so." in text and "instrument: 1 failed, 1 passed" in text
    assert "failed: Sums agree. (0.1, expected less than 0.001)" in text and "commute" not in text


@pytest.fixture
def page(tmp_path, conclusion):
    """A page with one figure and one table."""
    tables = [Table("Errors", ("m", "error"), [("16", "0.35")])]
    run = SimpleNamespace(log_params=id, log_artifacts=id, output=tmp_path, command="")
    sections = [*plots({"scaling": (panels()[0], "m against R.")}), *tables]
    result = Result(title="A study", intro="What & how.", conclusion=conclusion, sections=sections)
    result.save(PaperConfig(), run)
    return (tmp_path / "report.html").read_text()


def test_columns_of_a_table_are_numbers_or_text():
    rows = [("a", "0.35 [0.1, 0.6]", "", "", "wine"), ("b", "diverged", "", "−3", "2 tables")]
    assert Table("", ("",) * 5, rows).numeric == (False, True, True, True, True)
    assert Table("", ("",) * 5, rows[:1]).numeric == (False, True, True, True, False)


def test_a_page_goes_from_the_findings_to_what_would_change_them(page):
    parts = (
        "It is &amp; stays so.",
        "What &amp; how.",
        "<td>change, nats</td>",
        "0.20 [-0.05, 0.45]",
        '<td class="verdict holds">holds</td>',
        '<a href="#scaling">',
        '<figure id="scaling">',
        base64.b64encode(b"\x89PNG\r\n").decode(),
        "m against R.",
        '<td class="number">0.35</td>',
        "Checks of the instrument",
        '<td class="verdict failed">failed</td>',
        "experiment: table",
        "More seeds.",
    )
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
