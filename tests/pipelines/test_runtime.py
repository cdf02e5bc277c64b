"""Times of training steps: a real timing, exponents, the table's rows and the verdicts."""

import json
import math
from types import SimpleNamespace

import pytest

from ebflow.errors import BadInput
from pipelines.paper.cell import Finished
from pipelines.paper.config import PaperConfig, StepsConfig
from pipelines.paper.experiments.runtime import (
    PUBLISHED,
    RUNTIME,
    SIDES,
    conclude,
    exponent,
    figures,
    rows,
)
from pipelines.paper.graph import STAGES
from pipelines.paper.steps import steps

POWERS = {"ml": 3.0, "sml": 3.0}  # Those of others are 2


def finished(folder, scale="cpu", seeds=1):
    """Cells whose step times are powers of D, but for a thousandth."""
    found = []
    config = PaperConfig(experiment="runtime", scale=scale, seeds=seeds)
    for place, cell in enumerate(RUNTIME.all_cells(config)):
        out = folder / str(place)
        out.mkdir()
        size = cell.config.size
        wobble = 1 + 1e-3 * math.sin(size + cell.seed)
        times = {
            f"time/step_ms/{name}": 1e-6 * size ** POWERS.get(name, 2.0) * wobble**k
            for k, name in enumerate(cell.config.objectives)
        }
        (out / "evaluation.json").write_text(json.dumps(times))
        found.append(Finished(cell, {"measured": out}))
    return found


def test_a_step_of_every_objective_is_timed(tmp_path):
    metrics = {}
    run = SimpleNamespace(output=tmp_path, log_params=dict, write_metrics=metrics.update)
    names = ("ml", "ssm_vr", "lazy_ml")
    options = {"side": 8, "channels": 1, "seconds": 0.001, "square": 512, "objectives": names}
    for network in ("FC", "CNN"):
        steps(StepsConfig(network=network, **options), run=run)
        assert [*metrics] == [f"time/step_ms/{name}" for name in names]
        assert all(ms > 0 for ms in metrics.values())
        timings = json.loads((tmp_path / "timings.json").read_text())
        assert [timing["size"] for timing in timings] == [64] * 3


def test_a_timing_has_its_node_alone():
    assert STAGES["steps"].needs == {"CPU": math.inf}


def test_exponents_are_slopes_of_logarithms():
    """Of scipy's formula: the slope, and its standard error with n - 2 degrees of freedom."""
    times = {100: 2.0, 200: 16.2, 400: 128.0}
    fit = exponent(times)
    assert fit.value == pytest.approx(3.0) and fit.df == 1
    middle = math.log(16.2 / 16)  # the least squares' line leaves 1/6, -1/3, 1/6 of it... times 2
    residuals = [-middle / 3, 2 * middle / 3, -middle / 3]
    spread = 2 * math.log(2) ** 2
    assert fit.se == pytest.approx(math.sqrt(sum(r * r for r in residuals) / spread))
    assert exponent(times, {100: 1.0, 200: 1.0, 400: 1.0}).value == pytest.approx(-3.0)
    assert math.isnan(exponent({100: 1.0, 200: 2.0}).se)


def test_rows_show_the_sizes_of_the_paper_and_its_numbers(tmp_path):
    cells = finished(tmp_path)
    table = {tuple(row["labels"].values()): row for row in rows(cells)}
    dsm = table["FC", "3×32×32", "dsm"]
    assert dsm["published"] == PUBLISHED["FC", "colour"][3] == 57.14
    assert dsm["study/exponent"] == pytest.approx(2.0, abs=0.01)
    assert dsm["study/faster"] == pytest.approx(3072, rel=0.01)
    assert dsm["time/batches_per_s"] == pytest.approx(1e3 / dsm["time/step_ms"])
    assert len(dsm["study/sizes"]) == 5  # grey and colour images are rows alike
    assert table["CNN", "1×28×28", "lazy_ml"]["published"] is None
    assert {key[1] for key in table} == {"1×28×28", "3×32×32"}


@pytest.mark.parametrize("seeds", [1, 3])
def test_claims_hold_where_exponents_differ_by_one(tmp_path, seeds):
    cells = finished(tmp_path, seeds=seeds)
    claims = conclude(cells).claims
    assert [claim.verdict for claim in claims[:9]] == ["holds"] * 9
    assert all(claim.value == pytest.approx(1.0, abs=0.05) for claim in claims[:9])
    speed = "holds" if seeds > 1 else "not decided at this size"
    assert {claim.verdict for claim in claims[9:]} == {speed} and len(claims) == 13
    ((figure, caption),) = figures(rows(cells), cells).values()
    assert len(figure.axes) == 3 and "exponents" in caption


def test_a_claim_fails_where_exponents_are_equal(tmp_path, monkeypatch):
    monkeypatch.setitem(POWERS, "ml", 2.0)
    claims = conclude(finished(tmp_path)).claims
    assert [claim.verdict for claim in claims[:9]] == ["does not hold"] * 9


def test_objectives_are_chosen_beside_ml():
    chosen = PaperConfig(experiment="runtime", objectives=("relative_ml", "dsm"))
    names = {cell.config.network: cell.config.objectives for cell in RUNTIME.all_cells(chosen)}
    assert names == {"FC": ("ml", "dsm", "relative_ml"), "CNN": ("ml", "dsm")}
    with pytest.raises(BadInput, match="--objectives"):
        RUNTIME.all_cells(PaperConfig(experiment="runtime", objectives=("csm",)))


def test_sizes_suit_three_blocks_of_convolutions():
    assert all(side % 4 == 0 for scale in SIDES.values() for sides in scale.values()
               for side in sides)  # fmt: skip
