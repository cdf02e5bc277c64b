"""The options of the study, its cells, and the rows of small cells."""

import numpy as np
import pandas as pd
import pytest

from ebflow.complexity.instances import worst_eta
from ebflow.complexity.truths import load
from pipelines.cli.main import parse_run
from pipelines.sample_complexity import data_like
from pipelines.sample_complexity.config import (
    DELTAS,
    EPSILON,
    NEAREST,
    ClassCell,
    ComplexityConfig,
    DenoiserCell,
    FiniteCell,
    FlowCell,
    ImageCell,
    LearnedCell,
    NetworkCell,
    SpoiledCell,
    StepCell,
    StepsCell,
    TwoPointCell,
    cells,
    title,
)
from pipelines.sample_complexity.far_mode import OF_NETWORKS, geometric, grid
from pipelines.sample_complexity.learn import MEASURES, measured
from pipelines.sample_complexity.rows import matrix, where

SMOKE = ComplexityConfig(scale="smoke")


def of(kind, config=SMOKE, **fields):
    chosen = [cell for cell in cells(config) if isinstance(cell, kind)]
    return [c for c in chosen if all(getattr(c, name) == v for name, v in fields.items())]


@pytest.mark.parametrize("scale", ["smoke", "cpu", "full"])
def test_cells_differ_and_so_do_their_titles(scale):
    found = cells(ComplexityConfig(scale=scale))
    assert len(set(found)) == len({title(cell) for cell in found}) == len(found)
    assert {type(cell) for cell in found} == set(MEASURES)


def test_the_grid_is_the_configured_one():
    config = ComplexityConfig(scale="cpu")
    for noise in ("once", "fresh"):
        line = of(NetworkCell, config, size=1, noise=noise, width=32, depth=2)
        assert {cell.ratio for cell in line} == {8, 16, 32, 64}
        for ratio in (8, 64):
            seeds = [(c.first, c.count) for c in line if c.ratio == ratio]
            assert seeds == [(0, 10), (10, 10), (20, 10)]
    assert {cell.size for cell in of(NetworkCell, config, ratio=32.0)} == {1, 2, 4, 8}
    here = of(NetworkCell, config, ratio=16.0)
    assert {cell.width for cell in here if cell.depth == 2} == {8, 16, 32, 64}
    assert {cell.depth for cell in here if cell.width == 32} == {1, 2, 3, 4}
    assert {cell.eta for cell in of(DenoiserCell, config)} == {0, 5e-4, 5e-3, 5e-2}


def test_the_far_mode_is_never_heavier_than_the_mass_beyond_the_quantile():
    assert worst_eta(NEAREST, EPSILON) == pytest.approx(DELTAS[-1], rel=0.01)


def test_options_override_the_scale_and_are_sorted():
    words = ["--scale", "smoke", "--learners.width", "7", "--grid.dims", "4", "2", "2"]
    run = parse_run("run sample-complexity", words).run
    assert run.config == SMOKE.changed(learners={"width": 7}, grid={"dims": (2, 4)})


INVALID = {
    "--grid.radii": ("--grid.radii", "8", "x"),
    "radii": ("--grid.radii", "1", "8"),
    "etas": ("--distribution.etas", "0", "1"),
    "furthest": ("--grid.furthest", "7"),
}


@pytest.mark.parametrize("option", INVALID)
def test_invalid_options_are_named(home, ebflow, option):
    result = ebflow("run", "sample-complexity", *INVALID[option])
    assert not home.exists()
    assert option in result.refusal


def test_a_grid_is_geometric_and_reaches_its_end():
    assert geometric(8, 100, 2**0.5) == [8, 11, 16, 23, 32, 45, 64, 91, 128]
    assert geometric(2, 9, 1.25)[:3] == [2, 3, 4]


def test_a_matrix_has_a_row_for_each_training_set():
    rows = pd.DataFrame({"seed": [1, 0, 1, 0], "m": [2, 4, 4, 2], "e": [0.1, 0.2, 0.3, 0.4]})
    values, sizes = matrix(rows, "e")
    assert sizes == [2, 4] and values.tolist() == [[0.4, 0.2], [0.1, 0.3]]


def smaller(cell, **fields):
    return cell.model_copy(update={"count": 2, **fields})


# Fields that make a cell as small as it goes
TINY = {
    FiniteCell: {"ratio": 8.0},
    NetworkCell: {"steps": 5},
    DenoiserCell: {"lengths": (1, 3), "levels": 2},
    SpoiledCell: {"samples": 200},
    TwoPointCell: {"ratios": (8.0,)},
    ClassCell: {"values": (0.2,)},
    StepCell: {"places": (2.0,)},
    StepsCell: {"samples": 200, "numbers": (2, 4)},
    LearnedCell: {"samples": 200, "steps": 3, "levels": 4},
    FlowCell: {"steps": 3},
    ImageCell: {"steps": 3, "levels": 2},
}


@pytest.mark.system
@pytest.mark.parametrize("kind", TINY, ids=lambda kind: kind.__name__)
def test_a_cell_has_the_same_rows_again(kind):
    cell = smaller(of(kind)[-1], **TINY[kind])
    first, again = measured(cell), measured(cell)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert len(first) >= 2
    other = measured(cell.model_copy(update={"seed": 1}))
    assert not first.equals(other)


def test_rows_of_networks_count_far_samples_and_errors():
    cell = smaller(of(NetworkCell, ratio=8.0, noise="fresh")[0], steps=5, count=3)
    rows = measured(cell)
    sizes = grid(OF_NETWORKS, 8.0)
    assert len(rows) == 3 * len(sizes)
    for seed in range(3):
        some = where(rows, seed=seed)
        assert some["m"].tolist() == sizes
        counts = some["n_far"].tolist()
        assert counts == sorted(counts) and all(n <= m for n, m in zip(counts, sizes, strict=True))
    both = np.hypot(rows["sigma_l2_bulk"], rows["sigma_l2_far"])
    np.testing.assert_allclose(rows["sigma_l2"], both, rtol=1e-5)


@pytest.mark.system
def test_a_finite_class_errs_as_the_closed_form_says():
    """Without a far sample it guesses one of five places, four of which cost 2 ε.

    From 100 samples on, which decide the place of the bulk. Of 200 sets; 4 binomial standard
    deviations are let pass.
    """
    rows = measured(FiniteCell(seed=3, count=200, ratio=16.0)).query("m >= 100")
    errors, sizes = matrix(rows, "sigma_l2")
    expected = 0.8 * (1 - rows["eta"].iloc[0]) ** np.array(sizes)
    spread = np.sqrt(expected * (1 - expected) / 200)
    assert (abs((errors > EPSILON).mean(0) - expected) < 4 * spread).all()
    tail, _ = matrix(rows, "sigma_d_0.1")
    assert np.median(tail, 0).max() < 0.1 * EPSILON


def test_a_training_set_is_the_same_in_any_cell():
    cell = smaller(of(NetworkCell, ratio=8.0, noise="fresh")[0], steps=1, count=4)
    whole = measured(cell)
    part = measured(cell.model_copy(update={"first": 2, "count": 2}))
    assert where(whole, seed=3)["n_far"].tolist() == where(part, seed=3)["n_far"].tolist()


@pytest.mark.system
def test_denoisers_learn_nested_training_sets_and_err_at_every_level():
    cell = of(DenoiserCell, eta=0.05)[0]
    rows = measured(smaller(cell, sizes=(30, 200), lengths=(1,), levels=10))
    networks = where(rows, learner="residual networks")
    assert networks["m"].tolist() == [30, 200, 30, 200]
    seen = networks["n_far"].to_numpy()
    assert (seen[::2] <= seen[1::2]).all() and 2 < seen[1::2].mean() < 20
    levels = np.array(networks["by_level_l2"].tolist())
    np.testing.assert_allclose(levels[:, -1], networks["sigma_l2"], rtol=1e-5)
    mean = np.sqrt((levels**2).mean(1))
    np.testing.assert_allclose(mean, networks["levels_l2"], rtol=1e-5)


def test_each_training_set_has_its_own_test_points():
    """So that intervals over sets include the randomness of test points."""
    cell, truth = of(DenoiserCell, eta=0.0)[0], load("digits")
    measure = data_like.Measure(cell.seed, truth, [2.0, 0.5], 20)
    found = measure.errors(lambda x, sigma: 0 * x, [3, 3, 4])
    first, second, other = found["levels_l2"].tolist()
    assert first == pytest.approx(second, rel=1e-9) != other


@pytest.mark.system
def test_measuring_during_training_does_not_change_its_end():
    cell = smaller(of(DenoiserCell, eta=0.0)[0], lengths=(2, 6), levels=2)
    rows = measured(cell)
    whole = measured(cell.model_copy(update={"lengths": (6,)}))
    networks, whole = (where(found, learner="residual networks") for found in (rows, whole))
    errors = {step: where(networks, step=step)["levels_l2"].tolist() for step in (2, 6)}
    assert errors[6] == whole["levels_l2"].tolist() != errors[2]
