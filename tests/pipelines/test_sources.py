"""The digest of code: all that a module imports of the library, and nothing else."""

import sys

import pytest

from pipelines import sources
from pipelines.sources import modules_of, source_digest


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library of the tests' own in place of ebflow: a → b → c, and d apart."""
    folder = tmp_path / "lib"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("from .d import D\n")
    (folder / "inner" / "__init__.py").write_text("")
    (folder / "a.py").write_text("import numpy\nfrom lib.inner import b\n")
    (folder / "inner" / "b.py").write_text("def f():\n    from ..c import C\n")
    (folder / "c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .d import D\nC = 1\n"
    )
    (folder / "d.py").write_text("D = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "LIBRARY", "lib")
    return folder


@pytest.mark.parametrize("name", ["a.py", "inner/b.py", "c.py"])
def test_a_change_of_what_is_imported_counts(library, name):
    before = source_digest("lib.a")
    (library / name).write_text((library / name).read_text() + "# changed\n")
    assert source_digest("lib.a") != before


@pytest.mark.parametrize("name", ["d.py", "inner/__init__.py"])
def test_a_change_of_what_is_not_imported_does_not(library, name):
    before = source_digest("lib.a")
    (library / name).write_text("changed = True\n")
    assert source_digest("lib.a") == before


def test_nothing_is_imported(library):
    source_digest("lib.a")
    assert "lib" not in sys.modules


def test_a_package_has_all_its_modules(library):
    assert modules_of("lib") == ["lib", "lib.a", "lib.c", "lib.d"]
    assert modules_of("lib.inner") == ["lib.inner", "lib.inner.b"]


def test_unknown_module(library):
    with pytest.raises(ModuleNotFoundError, match="lib.none"):
        source_digest("lib.none")


def test_the_report_does_not_stand_behind_the_training():
    from pipelines.density import prepare, train

    assert {"ebflow.train", "ebflow.objectives"} <= closure("pipelines.training")
    for stage in ("prepare", "evaluate", "report"):
        assert "ebflow.train" not in closure(f"pipelines.stages.{stage}")
    assert prepare.hash != train.hash


def closure(*modules):
    """Names of the modules that the digest reads."""
    todo, seen = list(modules), set()
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            path = sources._path(module)
            todo += sources._imported(module, path, path.read_bytes())
    return seen
