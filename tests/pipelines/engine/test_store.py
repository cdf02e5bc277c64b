"""The contents of a store, and what ``prune`` deletes from it."""

import fcntl
import os
import time

import pytest

from pipelines import store
from pipelines.errors import StageFailed
from pipelines.store.files import is_locked
from tests.pipelines.stages import ERRORS

from .cases import graph, ran


def names(result):
    """Returns the artefacts that a command lists."""
    assert result.code == 0, result.err
    return {line.split()[0] for line in result.out if "/" in line.split(" ")[0]}


def files(folder):
    return {path for path in folder.rglob("*") if path.is_file() and "locks" not in path.parts}


@pytest.fixture(params=["disk", "bucket"])
def used(request, engine, home, tmp_path, monkeypatch):
    """A store with two days old runs of graph(3), which ran again today, and of graph(4)."""
    if request.param == "bucket":
        monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/bucket")
    for samples in (3, 4):
        engine().run(graph(samples))
    (home / "logs").mkdir()
    (home / "logs" / "old.log").touch()
    (home / "work" / "mine").mkdir(parents=True)
    (home / "work" / "mine" / "notes").touch()
    for path in files(tmp_path):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    engine().run(graph(3), tmp_path / "results")
    return tmp_path


def test_a_store_lists_what_it_has(used, engine, ebflow, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    ERRORS["write"] = StageFailed("disk")
    with pytest.raises(StageFailed):
        engine().run(graph(5))
    result = ebflow("store", "list")
    assert len(names(result)) == 5 and result.text.count("tests") == 5
    assert "4 artefacts, 1 unfinished (–): " in result.out[-1]
    assert names(ebflow("store", "list", "--stage", "write")) < names(result)


def test_prune_deletes_what_is_not_used_and_the_same_command_recomputes_it(used, engine, ebflow):
    before, words = files(used), ("store", "prune", "--days", "1")
    planned = ebflow(*words, "--dry-run")
    assert files(used) == before and len(names(planned)) == 3
    with store.lock("run-other"):  # it runs since before that run of today
        assert names(ebflow("store", "prune", "--days", "0")) == names(planned)
    assert files(used) < before
    assert (used / "store" / "work" / "mine" / "notes").exists()
    assert ran(engine, graph(3)) == set() and ran(engine, graph(4)) == {"write", "double"}


def test_a_log_that_cannot_be_deleted_stays(used, ebflow, home):
    place = home / "logs" / "other.log"
    place.mkdir(parents=True)
    os.utime(place, (0, 0))
    result = ebflow("store", "prune", "--days", "0")
    assert result.code == 0 and f"{place} stays: " in result.text and place.is_dir()


def test_prune_follows_no_link_and_leaves_what_a_stage_holds(used, ebflow, home):
    outside, link = used / "outside", home / "work" / "write" / ("0" * 20)
    outside.mkdir()
    (outside / "mine").touch()
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    os.utime(outside / "mine", (0, 0))
    key = next(entry.key for entry in store.entries() if entry.stage == "double")
    with store.lock(f"double-{key}"):
        ebflow("store", "prune", "--days", "0")
    assert (outside / "mine").exists() and not link.is_symlink()
    assert [entry.key for entry in store.entries()] == [key]


def test_a_lock_that_is_only_looked_at_is_not_waited_for(home, monkeypatch):
    with store.lock("mine"):
        pass
    with (home / "locks" / "mine").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as `is_locked` does for a moment
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(other, fcntl.LOCK_UN))
        with store.lock("mine", waiting=lambda: pytest.fail("said that it waits")):
            assert is_locked(home / "locks" / "mine")


def test_marks_that_are_drafts_or_cut_off_are_passed_over(used, engine, ebflow, home):
    marks = home / "provenance" / "write"
    (marks / f".{'0' * 20}.json.ab").write_text("{")
    (marks / f"{'1' * 20}.json").write_text('{"stage": ')
    assert len(names(ebflow("store", "list"))) == 5
    assert ran(engine, graph(5)) == {"write", "double"}


def test_a_folder_that_is_no_store_is_left_alone(home, ebflow):
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "a.log").touch()
    assert "found no store" in ebflow("store", "prune", "--days", "0").refusal
    assert "--days: found -1" in ebflow("store", "prune", "--days", "-1").refusal
    assert (home / "logs" / "a.log").exists()
