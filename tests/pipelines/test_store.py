"""The store: whole artefacts or none, changes noticed, one worker a key."""

import hashlib
import os
import subprocess
import sys
import textwrap

import pytest

from pipelines import store
from pipelines.store import artefacts


@pytest.fixture
def made(home):
    folder = home / "draft"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "inner" / "b.txt").write_text("b")
    record = store.commit("stage", "key", folder, run_id="run")
    return store.artefact("stage", "key"), record


def test_commit_moves_the_folder_and_records_it(made, home):
    folder, record = made
    assert not (home / "draft").exists()
    assert (folder / "inner" / "b.txt").read_text() == "b"
    assert store.find("stage", "key") == record
    assert (record.digest, record.size, record.run_id) == (store.digest(folder), 2, "run")


def test_commit_replaces_what_was_there(made, home):
    folder, _ = made
    (home / "draft").mkdir()
    (home / "draft" / "c.txt").write_text("c")
    store.commit("stage", "key", home / "draft", run_id="later")
    assert [path.name for path in folder.iterdir()] == ["c.txt"]
    assert store.find("stage", "key").run_id == "later"


def test_an_equal_artefact_stays_for_those_who_read_it(made, home):
    folder, record = made
    (home / "draft" / "inner").mkdir(parents=True)
    for path in (folder / "a.txt", folder / "inner" / "b.txt"):
        (home / "draft" / path.relative_to(folder)).write_text(path.read_text())
    inode = folder.stat().st_ino
    assert store.commit("stage", "key", home / "draft", run_id="later").digest == record.digest
    assert folder.stat().st_ino == inode and store.find("stage", "key").run_id == "later"


def test_no_artefact_has_no_record(home):
    assert store.find("stage", "key") is None
    assert not home.exists()


CHANGES = {
    "changed": lambda folder: (folder / "a.txt").write_text("A"),
    "renamed": lambda folder: (folder / "a.txt").rename(folder / "z.txt"),
    "removed": lambda folder: (folder / "inner" / "b.txt").unlink(),
    "added": lambda folder: (folder / "c.txt").write_text("c"),
    "truncated": lambda folder: (folder / "a.txt").write_text(""),
}


def test_a_hit_reads_no_file_and_a_copy_of_the_store_is_as_good(made, monkeypatch):
    """Times of a copy may differ: then the content decides."""
    folder, record = made
    (folder / "a.txt").touch()
    assert store.find("stage", "key") == record
    os.utime(folder / "a.txt", ns=(0, record.files["a.txt"][1]))
    monkeypatch.setattr(artefacts, "digest", lambda folder: pytest.fail("read"))
    assert store.find("stage", "key") == record


def test_verify_finds_what_sizes_and_times_do_not_show(made, ebflow):
    folder, record = made
    assert ebflow("store", "verify").code == 0
    (folder / "a.txt").write_text("A")
    os.utime(folder / "a.txt", ns=(0, record.files["a.txt"][1]))
    assert store.find("stage", "key") == record
    ended = ebflow("store", "verify")
    assert ended.code == 1 and ended.out[0] == str(folder)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_artefact_has_no_record(made, change):
    change(made[0])
    assert store.find("stage", "key") is None


def test_the_digest_does_not_depend_on_the_place(made, tmp_path):
    folder, record = made
    assert store.digest(folder.rename(tmp_path / "moved")) == record.digest


def test_an_empty_artefact_whose_folder_is_gone_is_corrupt(home):
    (home / "draft").mkdir(parents=True)
    store.commit("stage", "key", home / "draft", run_id="run")
    store.artefact("stage", "key").rmdir()
    assert [*map(store.is_corrupt, store.recorded())] == [True]


def test_the_digest_has_files_in_the_order_of_their_paths(tmp_path):
    """As in earlier versions: ``a/b`` is before ``a.txt``."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("b")
    (tmp_path / "a.txt").write_text("a")
    total = hashlib.sha256()
    for name, text in (("a/b", b"b"), ("a.txt", b"a")):
        total.update(f"{name}\0{hashlib.sha256(text).hexdigest()}\n".encode())
    assert store.digest(tmp_path) == total.hexdigest()


def test_text_is_utf_8_in_every_locale(tmp_path):
    code = "from pathlib import Path; from pipelines.store.files import write_text; "
    code += f"write_text(Path({str(tmp_path / 'text')!r}), '\\xe9')"
    settings = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], env=settings, check=True)
    assert (tmp_path / "text").read_bytes() == "é".encode()


HOLDER = textwrap.dedent(
    """
    from pipelines import store
    with store.lock("name"):
        print("held", flush=True)
        input()
    """
)


def test_a_lock_is_held_among_processes_and_freed_by_death(home):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    waited = []

    def waiting():
        waited.append(True)
        holder.kill()

    with store.lock("name", waiting=waiting):
        assert waited == [True]
    assert holder.wait() == -9
