"""Contents reach the disk before names do: told by the system calls, in their order; and JSON."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from ebflow.checkpoint import Checkpoint, read, write
from ebflow.files import load_tensors, move, save_tensors
from pipelines import store
from pipelines.store.files import drafted, write_json, write_text
from tests.prepared import prepare


@pytest.fixture
def calls(monkeypatch):
    """The names that were synchronized and given, in turn; the real calls are made."""
    found, fsync, replace = [], os.fsync, os.replace

    def synced(handle):
        found.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def named(old, new):
        found.append(("name", os.path.basename(new)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named)
    return found


def check(calls, name, parent, files):
    """Checks that all files were synchronized before a name was given, and it thereafter."""
    at = calls.index(("name", name))
    assert {("sync", file) for file in files} <= set(calls[:at])
    assert calls[at + 1] == ("sync", parent)


def test_a_folder_is_moved_whole(tmp_path, calls):
    (tmp_path / "new" / "inner").mkdir(parents=True)
    (tmp_path / "new" / "inner" / "file").write_text("text")
    (tmp_path / "new" / "link").symlink_to("nowhere")
    move(tmp_path / "new", tmp_path / "final")
    check(calls, "final", tmp_path.name, ["new", "inner", "file"])
    assert (tmp_path / "final" / "inner" / "file").read_text() == "text"


def test_checkpoints_are(tmp_path, calls):
    write(
        tmp_path / "checkpoint",
        Checkpoint(*({"t": torch.zeros(1)}, {"flow": {}}, *[{"t": torch.zeros(1)}] * 2)),
    )
    files = [path.name for path in (tmp_path / "checkpoint").iterdir()]
    assert len(files) == 4
    check(calls, "checkpoint", tmp_path.name, files)


def test_prepared_data_are(tmp_path, calls):
    prepare("digits", tmp_path / "data", rows=600)
    files = [path.name for path in (tmp_path / "data").iterdir()]
    assert "manifest.json" in files
    check(calls, "data", tmp_path.name, files)


def test_artefacts_and_their_records_are(tmp_path, calls, monkeypatch):
    monkeypatch.setenv("EBFLOW_HOME", str(tmp_path))
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "file").write_text("text")
    store.commit("stage", "key", tmp_path / "draft", run_id="1")
    check(calls, "key", "stage", ["file"])
    drafts = [name for kind, name in calls if kind == "sync" and name.startswith(".key.json.")]
    check(calls, "key.json", "stage", drafts)
    assert len(drafts) == 1


def test_of_a_file_that_fails_nothing_is_left(tmp_path):
    final = tmp_path / "file"
    write_text(final, "before")
    with pytest.raises(ValueError, match="broken"), drafted(final) as draft:
        draft.write_text("half")
        raise ValueError("broken")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert final.read_text() == "before"


def test_json_takes_all_texts_and_what_is_no_finite_number_is_null(tmp_path):
    """Other readers than Python's know no NaN and no Infinity."""
    found = {"se": math.nan, "rows": [{"low": -math.inf}, (1.5, True, None, "NaN")], "\udcff": "é"}
    write_json(tmp_path / "found.json", found)
    text = (tmp_path / "found.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "se": None, "rows": [{"low": None}, [1.5, True, None, "NaN"]], "\udcff": "é"
    }  # fmt: skip
    assert text.startswith('{\n "se": null,') and text.endswith("}\n")


def test_tensors_have_the_mode_of_other_files(tmp_path):
    before = os.umask(0o027)
    save_tensors({"t": torch.ones(2)}, tmp_path / "t.safetensors", key="value")
    os.umask(before)
    assert (tmp_path / "t.safetensors").stat().st_mode & 0o777 == 0o640
    tensors, metadata = load_tensors(tmp_path / "t.safetensors")
    assert tensors["t"].equal(torch.ones(2)) and metadata == {"key": "value"}


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    write(tmp_path / "checkpoint", Checkpoint({"t": torch.zeros(1)}, {"flow": {}}))
    monkeypatch.chdir(tmp_path / "checkpoint")
    Path("model.safetensors").chmod(0)
    if not os.geteuid():
        os.seteuid(65534)  # the superuser may read all
    try:
        for reading in (lambda: load_tensors(Path("model.safetensors")), lambda: read(".")):
            with pytest.raises(PermissionError, match="model.safetensors"):
                reading()
    finally:
        os.seteuid(os.getuid())
