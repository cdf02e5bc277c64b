"""Rows of the paper: their verdicts, and that claims and checks of these words exist."""

import pytest

from pipelines.gradient_alignment import rows
from pipelines.gradient_alignment.questions import CHECKS, QUESTIONS
from pipelines.reporting.claims import Check, Claim, Conclusion

SENTENCES = [one[0] for one in (*QUESTIONS, *CHECKS)]


@pytest.mark.parametrize("row", (*rows.ROWS, *rows.COLOUR_ROWS), ids=lambda row: row.row)
def test_every_row_names_claims_and_checks_of_the_study(row):
    for start in row.decided_by:
        assert sum(sentence.startswith(start) for sentence in SENTENCES) == 1, start


def decided(*verdicts):
    """Returns the entry of a row that a claim and a check decide, and by their verdicts."""
    row = rows.Row("S0", "An item.", ("A claim", "A check"), ("figure",), "--seeds 3")
    claim, passed = verdicts
    claims = () if claim is None else (Claim("A claim.", claim, "a number", value=0.5, low=0.4),)
    checks = (Check("A check.", "a number", 1e-5, "below 1", passed),)
    return row.entry(Conclusion(claims=claims, checks=checks))


@pytest.mark.parametrize(("verdicts", "expected"), [
    (("holds", True), "holds"),
    (("does not hold", True), "does not hold"),
    (("holds", False), "does not hold"),
    (("not decided at this size", True), "not decided at this scale"),
    (("holds", None), "not decided at this scale"),
    ((None, True), "not decided at this scale"),
])  # fmt: skip
def test_a_row_holds_if_all_of_its_parts_do(verdicts, expected):
    entry = decided(*verdicts)
    assert entry["verdict"] == expected
    assert entry["command"] == "ebflow run gradient-alignment --seeds 3"


def test_a_row_has_its_numbers():
    claim, check = decided("holds", True)["numbers"]
    assert (claim["value"], claim["low"], claim["verdict"]) == (0.5, 0.4, "holds")
    assert (check["value"], check["low"], check["expected"]) == (1e-5, None, "below 1")
