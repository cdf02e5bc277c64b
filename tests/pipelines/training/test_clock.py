"""Seconds by name, on a clock that the test turns."""

import pytest

from pipelines.training.flow_training import Clock


def test_times_add_up(turn):
    clock = Clock()
    for _ in range(3):
        with clock("a"):
            turn(2)
        turn(5)
    assert clock.totals == {"a": 6.0} and clock.totals["b"] == 0.0


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


def test_an_error_is_timed_too(turn):
    clock = Clock()
    with pytest.raises(KeyError), clock("a"):
        turn(3)
        raise KeyError
    assert clock.totals["a"] == 3.0
