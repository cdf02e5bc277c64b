"""Warnings to readers of the table."""

from types import SimpleNamespace

import pytest

from pipelines.density.likelihoods import better, lines
from pipelines.density.likelihoods import warnings as found

GOOD = {
    "train/best_step": 100,
    "test/nll": 90.0, "test/nll_se": 0.5, "test/bpd": 2.0, "best/val_nll": 91.0,
    "test/gain": 14.0, "test/gain_se": 0.1,
    "test/gain_over_mixture": 5.0, "test/gain_over_mixture_se": 0.2,
    "baseline/gaussian_nll": 104.0, "baseline/gaussian_nll_se": 0.6, "baseline/gaussian_bpd": 2.3,
    "baseline/gaussian_val_nll": 104.5,
    "baseline/mixture_nll": 95.0, "baseline/mixture_nll_se": 0.6, "baseline/mixture_bpd": 2.1,
    "baseline/mixture_val_nll": 95.5, "baseline/mixture_components": 8, "baseline/mixture_full": 1,
    "baseline/contexts": 0,
}  # fmt: skip
IMAGES, COLUMNS = SimpleNamespace(levels=17, width=64), SimpleNamespace(levels=None, width=5)
ONE = SimpleNamespace(levels=None, width=1)


def doubts(manifest=IMAGES, base="normal", **numbers):
    model = {"architecture": "dense", "base": base}
    return list(found({**GOOD, **numbers}, manifest, model))


def table(numbers):
    return [line.cells for line in lines(numbers)]


def test_a_good_run_has_none():
    assert not doubts()


def test_an_untrained_checkpoint_is_told():
    assert "the checkpoint is the untrained flow" in doubts(**{"train/best_step": 0})[0]


MIXTURE = {"test/nll": 101.03, "test/gain": 2.97, "test/gain_over_mixture": -6.03}
GAUSSIAN = {"baseline/gaussian_nll": 83.97, "test/gain": -6.03}


@pytest.mark.parametrize(
    ("numbers", "name"),
    [(MIXTURE, "mixture of 8 Gaussians"), (GAUSSIAN, "full-covariance Gaussian")],
)
def test_worse_than_the_better_baseline_is_told_with_what_to_try(numbers, name):
    (doubt,) = doubts(**numbers)
    error = "0.20" if numbers is MIXTURE else "0.10"
    assert doubt.startswith(f"the flow is worse than a {name}, by 6.03 ± {error} nats: ")
    for word in ("--train.max-seconds", "--model.base mixture", "coupling"):
        assert word in doubt


def test_what_is_so_already_is_not_named():
    (doubt,) = doubts(base="mixture", **MIXTURE)
    assert "--model.base" not in doubt and "coupling" in doubt


def test_couplings_are_not_named_where_one_column_refuses_them():
    (doubt,) = doubts(ONE, **MIXTURE)
    assert "--model.base mixture" in doubt and "coupling" not in doubt


@pytest.mark.parametrize(("gain", "error", "warned"), [
    (-0.19, 0.2, False), (-0.21, 0.2, True), (0.21, 0.2, False),
    (-0.009, 0.001, False), (-0.011, 0.001, True),
])  # fmt: skip
def test_it_is_told_beyond_one_standard_error_unless_shown_as_nothing(gain, error, warned):
    numbers = {"test/gain_over_mixture": gain, "test/gain_over_mixture_se": error}
    assert bool(doubts(**numbers)) == warned


def test_the_table_has_the_paired_differences():
    flow, gaussian, mixture = table(GOOD)
    assert flow == ("flow", "90.00 ± 0.50", "2.000", "", "91.00")
    assert gaussian == (
        "full-covariance Gaussian", "104.00 ± 0.60", "2.300", "-14.00 ± 0.10", "104.50"
    )  # fmt: skip
    assert mixture[3:] == ("-5.00 ± 0.20", "95.50")


def test_one_row_has_no_standard_error():
    errors = {key: None for key in GOOD if key.endswith("_se")}
    flow, gaussian, _ = table({**GOOD, **errors})
    assert (flow[1], gaussian[3]) == ("90.00", "-14.00")
    assert not doubts(**errors, **MIXTURE)
    told = better({**GOOD, **errors}).compared
    assert told == "lower than that of a mixture of 8 Gaussians on one row, which decides nothing"


def test_a_mixture_is_named_by_what_it_is():
    few = {"baseline/mixture_components": 1, "baseline/mixture_full": 0}
    assert table({**GOOD, **few})[2][0] == "mixture of 1 diagonal Gaussian"
    given = table({**GOOD, **few, "baseline/contexts": 4})
    assert given[2][0] == "mixture of 1 diagonal Gaussian given the context"
    assert given[1][0] == "full-covariance Gaussian given the context"


def test_worse_than_uniform_is_told():
    assert "worse than a uniform one over 17 levels" in doubts(**{"test/bpd": 4.2})[0]
    assert not doubts(COLUMNS, **{"test/bpd": 99.0})
