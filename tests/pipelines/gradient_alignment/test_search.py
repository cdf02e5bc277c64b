"""The search of score matching's settings: its cells, and the choice by validation rows."""

import numpy as np
import pytest

from ebflow.errors import BadInput
from pipelines.gradient_alignment import search
from pipelines.gradient_alignment.config import SweepConfig
from pipelines.gradient_alignment.figures import figures
from pipelines.gradient_alignment.models import BASELINE, CLIP, SCORE
from pipelines.gradient_alignment.questions import Study, conclude
from pipelines.gradient_alignment.sweep import Cell, cells
from pipelines.gradient_alignment.tables import tables

from .cases import by_name

CENTRE = Cell(weight=0.1, stability=1e-3, step=0.03, noise=0.1)


def test_a_star_changes_one_setting_at_a_time():
    found = cells(SweepConfig(weights=(0.1, 0.3), noises=(0.2,), stabilities=(0.0,)), CENTRE)
    assert found == [
        CENTRE._replace(weight=0.3),
        CENTRE._replace(stability=0.0),
        CENTRE._replace(noise=0.2),
    ]


def test_a_grid_has_all_combinations():
    found = cells(SweepConfig(kind="grid", weights=(0.1, 0.3), steps=(0.03, 0.1)), CENTRE)
    assert len(found) == 3 and CENTRE not in found
    assert CENTRE._replace(weight=0.3, step=0.1) in found


@pytest.mark.parametrize(
    ("option", "values", "expected"),
    [
        ("weights", (0.1, -1.0), "numbers above 0"),
        ("steps", (0.0,), "numbers above 0"),
        ("stabilities", (-1e-3,), "numbers of at least 0"),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(option, values, expected):
    with pytest.raises(BadInput, match=rf"--sweep.{option}: found .*, expected {expected}"):
        cells(SweepConfig(**{option: values}), CENTRE)


def test_cells_are_models_of_the_recommended_training():
    found = by_name(models=("baseline",), sweep={"weights": (0.3,)})
    assert {"score", "paper-score"} < found.keys()
    own = found["search-0.3-0.001-0.03-0.1"]
    assert own.classifier.regularizer == SCORE.changed(weight=0.3)
    assert own.classifier.clip == CLIP and own.classifier.noise == 0.1
    assert own.cell == CENTRE._replace(weight=0.3)


def test_a_scale_has_its_own_search_unless_models_are_named():
    assert any(model.cell for model in by_name(scale="smoke").values())
    assert not any(model.cell for model in by_name(scale="smoke", models=("anti",)).values())


def numbers(accuracy, a3, validation):
    """Metrics of a model; ``validation``: the same two at validation points."""
    return {
        "accuracy": accuracy,
        "A3": a3,
        "validation/accuracy": validation[0],
        "validation/A3": validation[1],
    }


def studied(*outcomes):
    """Returns a study with one search of two cells, from metrics by model for each seed."""
    some = by_name(models=(BASELINE,), sweep={"weights": (0.03, 0.3)})
    some = {name: some[name] for name in outcomes[0]}
    entries = [
        {"numbers": one, "diagnosis": ""} for outcome in outcomes for one in outcome.values()
    ]
    return Study.of(some, entries, [{}] * len(some), width=64)


LOW, HIGH = "search-0.03-0.001-0.03-0.1", "search-0.3-0.001-0.03-0.1"

SEED = {
    "baseline": numbers(0.95, 0.4, (0.95, 0.4)),
    "score": numbers(0.95, 0.50, (0.95, 0.5)),
    "paper-score": numbers(0.96, 0.45, (0.95, 0.45)),
    LOW: numbers(0.945, 0.6, (0.94, 0.55)),
    HIGH: numbers(0.90, 0.9, (0.80, 0.9)),  # costs too much accuracy
}


def test_validation_rows_choose_and_test_rows_compare():
    other = SEED | {LOW: numbers(0.945, 0.7, (0.94, 0.45))}
    study = studied(SEED, other)
    assert search.chosen(study) == [LOW, "score"]
    np.testing.assert_allclose(search.over_paper(study), [0.15, 0.05])
    np.testing.assert_allclose(search.accuracy_over_paper(study), [-0.015, -0.01])


def test_the_most_accurate_is_chosen_if_all_cost_too_much():
    dear = {name: SEED[name] | {"validation/accuracy": 0.5} for name in ("score", LOW, HIGH)}
    dear[HIGH]["validation/accuracy"] = 0.6
    assert search.chosen(studied(SEED | dear)) == [HIGH]


def test_a_setting_that_diverged_is_not_chosen():
    assert search.chosen(studied(SEED | {LOW: {}})) == ["score"]


def test_a_search_is_claimed_drawn_and_listed():
    study = studied(*[SEED] * 12)
    claims = {one.claim: one for one in conclude(study, []).claims if one.figure == "search"}
    assert [one.verdict for one in claims.values()] == ["holds", "holds"]
    made, _ = figures(study, (3,))["search"]
    made.canvas.draw()
    assert len(made.axes) == 2, "accuracy and alignment, and alignment by λ"
    (table,) = (one for one in tables(study, {}) if one.title.startswith("Search"))
    assert [row[0] for row in table.rows] == ["paper-score", "score", LOW, HIGH]
    assert [row[-1] for row in table.rows] == ["0", "0", "12", "0"]


def test_without_a_reference_the_search_raises_the_dsm_cosine():
    def renamed(one):
        return {name.replace("A3", "DSM-cos"): value for name, value in one.items()}

    study = studied({name: renamed(one) for name, one in SEED.items()})
    assert search.target(study) == "DSM-cos" and search.chosen(study) == [LOW]
