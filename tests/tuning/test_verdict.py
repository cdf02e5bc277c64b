"""Who wins, and when a difference counts."""

import math

import numpy as np
import pytest

from tuning.verdict import decide, interval, settings


def rows(number, select, test):
    pairs = zip(select, test, strict=True)
    return [{"number": number, "seed": s, "select": a, "test": b}
            for s, (a, b) in enumerate(pairs, 1)]  # fmt: skip


BASE = rows(0, [10.0, 11.0, 12.0], [20.0, 21.0, 22.0])


def decided(*others):
    return decide(settings([*BASE, *(row for some in others for row in some)]))


def test_an_interval_is_students():
    found = interval([1.0, 2.0, 4.0])
    assert found.mean == pytest.approx(7 / 3)
    assert found.half == pytest.approx(4.302653 * math.sqrt(7 / 3) / math.sqrt(3))
    assert interval([1.0]).half is None


def test_an_interval_covers_the_mean_in_19_of_20_samples():
    """False alarms of this test: below 1e-4 (binomial, 1000 samples, 4 standard deviations)."""
    rng = np.random.default_rng(0)
    found = [interval(values) for values in rng.normal(3.0, 2.0, (1000, 4))]
    covered = np.mean([abs(one.mean - 3.0) <= one.half for one in found])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 1000)


def test_the_selection_rows_name_the_winner_and_the_test_rows_compare_it():
    good = rows(3, [5.0, 6.0, 7.0], [18.0, 19.1, 19.9])
    best_on_test = rows(4, [8.0, 9.0, 10.0], [1.0, 1.0, 1.0])
    found = decided(good, best_on_test)
    assert found.winner == 3
    assert found.gain.mean == pytest.approx(2.0) and found.gain.half == pytest.approx(0.2484, 1e-3)
    assert found.line == "better than the default by 2.0 ± 0.2 nats"


def test_differences_are_paired_by_seed():
    shifted = rows(3, [5.0, 6.0, 7.0], [19.0, 20.0, 21.0])
    assert decided(shifted).gain.half == pytest.approx(0.0, abs=1e-9)


LINES = {
    "no difference from the default shown: 0.3 ± ": [20.0, 22.0, 20.0],
    "worse than the default by 1.0 ± 0.2 nats": [21.0, 22.1, 22.9],
}


@pytest.mark.parametrize("line, test", LINES.items(), ids=LINES)
def test_what_is_not_better_is_not_called_so(line, test):
    assert decided(rows(3, [5.0, 6.0, 7.0], test)).line.startswith(line)


def test_the_default_may_win():
    found = decided(rows(3, [50.0, 60.0, 70.0], [1.0, 1.0, 1.0]))
    assert (found.winner, found.gain) == (0, None) and "it stays" in found.line


def test_one_seed_shows_no_interval():
    told = [*rows(0, [10.0], [20.0]), *rows(3, [5.0], [15.0])]
    assert "for one seed, which shows no interval" in decide(settings(told)).line


def test_a_setting_that_diverged_does_not_win():
    lost = [*rows(3, [1.0, 1.0], [1.0, 1.0]), {"number": 3, "seed": 3, "lost": "step 3: nan"}]
    assert decided(lost).winner == 0
    nothing = [{"number": 0, "seed": 1, "lost": "step 1: nan"}]
    assert decide(settings([*nothing, *rows(3, [1.0], [1.0])])).line.startswith(
        "the default diverged (step 1: nan)"
    )
    with pytest.raises(ValueError, match="every setting diverged, the first: step 1"):
        decide(settings(nothing))
