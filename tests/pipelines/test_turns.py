"""Who may run beside whom."""

from pipelines.engine.turns import ALONE, Turns


def test_jobs_run_together_while_there_is_room():
    turns = Turns(lambda: 2)
    assert turns.add("a", 1) == ["a"]
    assert turns.add("b", 1) == ["b"]
    assert turns.add("c", 1) == []
    assert turns.done("a") == ["c"]


def test_a_job_that_needs_more_than_there_is_runs_alone():
    turns = Turns(lambda: 2)
    assert turns.add("big", 8) == ["big"]
    assert turns.add("small", 1) == []
    assert turns.done("big") == ["small"]
    assert turns.add("alone", ALONE) == []
    assert turns.done("small") == ["alone"]


def test_nobody_overtakes():
    turns = Turns(lambda: 2)
    turns.add("a", 1)
    assert turns.add("big", 2) == [] and turns.add("b", 1) == []
    assert turns.done("a") == ["big"]
    assert turns.done("big") == ["b"]


def test_nothing_starts_once_it_is_closed():
    turns = Turns(lambda: 2)
    turns.add("a", 2)
    turns.add("b", 2)
    turns.close()
    assert turns.done("a") == [] and turns.add("c", 1) == []


def test_all_that_fits_starts_at_once():
    turns = Turns(lambda: 2)
    turns.add("big", 2)
    turns.add("a", 1)
    turns.add("b", 1)
    assert turns.done("big") == ["a", "b"]
