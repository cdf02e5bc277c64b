"""Who may run beside whom."""

from pipelines.engine.turns import ALONE, Turns


def test_jobs_run_together_while_there_is_room():
    turns = Turns(lambda: {"CPU": 2})
    assert turns.add("a", {"CPU": 1}) == ["a"]
    assert turns.add("b", {"CPU": 1}) == ["b"]
    assert turns.add("c", {"CPU": 1}) == []
    assert turns.done("a") == ["c"]


def test_a_job_that_needs_more_than_there_is_runs_alone():
    turns = Turns(lambda: {"CPU": 2})
    assert turns.add("big", {"CPU": 8}) == ["big"]
    assert turns.add("small", {"CPU": 1}) == []
    assert turns.done("big") == ["small"]
    assert turns.add("alone", ALONE) == []
    assert turns.done("small") == ["alone"]


def test_nobody_overtakes():
    turns = Turns(lambda: {"CPU": 2})
    turns.add("a", {"CPU": 1})
    assert turns.add("big", {"CPU": 2}) == [] and turns.add("b", {"CPU": 1}) == []
    assert turns.done("a") == ["big"]
    assert turns.done("big") == ["b"]


def test_nothing_starts_once_it_is_closed():
    turns = Turns(lambda: {"CPU": 2})
    turns.add("a", {"CPU": 2})
    turns.add("b", {"CPU": 2})
    turns.close()
    assert turns.done("a") == [] and turns.add("c", {"CPU": 1}) == []


def test_all_that_fits_starts_at_once():
    turns = Turns(lambda: {"CPU": 2})
    turns.add("big", {"CPU": 2})
    turns.add("a", {"CPU": 1})
    turns.add("b", {"CPU": 1})
    assert turns.done("big") == ["a", "b"]


def test_cpus_and_gpus_are_counted_apart():
    turns = Turns(lambda: {"CPU": 2, "GPU": 1})
    assert turns.add("cpus", {"CPU": 2}) == ["cpus"]
    assert turns.add("gpu", {"GPU": 1}) == ["gpu"]
    assert turns.add("another", {"GPU": 1}) == []
    assert turns.done("cpus") == []
    assert turns.done("gpu") == ["another"]
