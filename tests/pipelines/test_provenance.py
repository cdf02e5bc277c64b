"""Which code is running, as git and the environment tell it."""

import re
import subprocess

import pytest
import torch

from ebflow import __version__
from pipelines.tracking import provenance


@pytest.fixture
def untracked(tmp_path, monkeypatch):
    """The package lies in a checkout that does not track it."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.delenv("EBFLOW_COMMIT", raising=False)


def test_the_code_that_runs():
    code = provenance.code()
    assert code["ebflow"] == __version__ and code["torch"] == torch.__version__
    assert code["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", code["commit"])


def test_a_package_that_git_does_not_track_has_no_commit(untracked):
    assert provenance._commit() is None


def test_such_a_package_has_the_commit_that_the_environment_names(untracked, monkeypatch):
    monkeypatch.setenv("EBFLOW_COMMIT", "c0ffee")
    assert provenance._commit() == "c0ffee"
