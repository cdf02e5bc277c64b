"""Seconds by name, on a clock that the test turns."""

import pytest

from pipelines.training.resumable import Clock


def test_times_add_up(turn):
    clock = Clock()
    for _ in range(3):
        with clock("a"):
            turn(2)
        turn(5)
    assert clock.totals == {"a": 6.0} and clock.total("b") == 0.0


def test_an_inner_time_is_taken_out_of_the_outer(turn):
    clock = Clock()
    with clock("outer"):
        turn(1)
        with clock("inner"):
            turn(10)
            with clock("innermost"):
                turn(100)
        turn(2)
        with clock("inner"):
            turn(20)
    assert clock.totals == {"outer": 3.0, "inner": 30.0, "innermost": 100.0}


def test_laps_are_since_the_last(turn):
    clock = Clock()
    laps = []
    for seconds in (1, 2, 4):
        with clock("a"):
            turn(seconds)
        laps.append(clock.lap("a"))
    assert laps == [1.0, 2.0, 4.0]


def test_an_error_is_timed_too(turn):
    clock = Clock()
    with pytest.raises(KeyError), clock("a"):
        turn(3)
        raise KeyError
    assert clock.total("a") == 3.0
