"""Claims: how they are judged, told on a terminal, and shown on a page."""

import base64
import io

import pytest
from rich.console import Console

from ebflow.estimate import Interval
from pipelines.config import PaperConfig
from pipelines.reporting import claims

SLOPE = Interval(2.05, 1.93, 2.17)


def slope(holds=lambda found: found.low > 0):
    return claims.judge("It grows.", "slope", SLOPE, holds, figure="scaling", note="expected 2")


def test_an_interval_decides():
    assert slope().verdict == "holds"
    assert slope(lambda found: found.high < 1).verdict == "does not hold"
    assert claims.untested("It grows.", "slope").verdict == "not tested at this scale"


def test_the_number_is_told_with_its_interval():
    assert slope().told == "2.05 [1.93, 2.17]"
    assert claims.untested("It grows.", "slope").told == ""
    assert claims.Claim("It grows.", "holds", "slope", 2.05).told == "2.05"


@pytest.mark.parametrize(
    "numbers, told",
    [
        ((3.7e-16, -0.3, 0.45), "0.00 [-0.30, 0.45]"),
        ((-1e-9, -0.3, 0.45), "0.00 [-0.30, 0.45]"),
        ((1.7, 1.4, 2.2), "1.70 [1.40, 2.20]"),
        ((2080.0, 1970.0, 2200.0), "2,080 [1,970, 2,200]"),
        ((1.45e-4, 8.62e-5, 2.05e-4), "0.00015 [0.00009, 0.00020]"),
        ((3.97e-8, -4.57e-8, 1.25e-7), "4.0e-08 [-4.6e-08, 1.2e-07]"),
        ((0.465, 0.465, 0.465), "0.465"),
    ],
)
def test_digits_beyond_the_interval_are_not_told(numbers, told):
    assert claims.Claim("It grows.", "holds", "slope", *numbers).told == told


def test_a_terminal_shows_claims_numbers_and_verdicts():
    console = Console(width=80, file=io.StringIO())
    console.print(claims.table([slope(), claims.untested("It falls.", "slope")]))
    text = console.file.getvalue()
    assert "It grows." in text and "[1.93, 2.17]" in text and "not tested" in text


@pytest.fixture
def page(tmp_path):
    """A page with one figure and one table."""
    (tmp_path / "scaling.png").write_bytes(b"png")
    figures = {"scaling": claims.Figure(tmp_path / "scaling.png", "m against R.")}
    tables = [claims.Table("Errors", ("m", "error"), [("16", "0.35")])]
    return claims.page("A study", "What & how.", [slope()], figures, tables, PaperConfig())


def test_a_page_has_claims_figures_tables_and_the_configuration(page):
    assert "<td>slope</td>" in page and "2.05 [1.93, 2.17]" in page
    assert '<td class="verdict holds">holds</td>' in page
    assert '<a href="#scaling">' in page and '<figure id="scaling">' in page
    assert base64.b64encode(b"png").decode() in page
    assert "What &amp; how." in page and '<td class="number">0.35</td>' in page
    assert "experiment: table" in page
