"""Keys: the code that a module imports of the library, the configuration and the inputs."""

import sys
from pathlib import Path

import pytest

from pipelines.engine import keys
from pipelines.engine.keys import closure
from pipelines.engine.keys import code_digest as digest

ROOT = Path(__file__).parents[2]


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
    monkeypatch.setattr(keys, "OURS", ("lib",))
    monkeypatch.setattr(keys, "INFRASTRUCTURE", ("lib.carrier",))
    monkeypatch.setattr(keys, "WRITERS", ())
    keys._root.cache_clear()
    yield folder
    keys._root.cache_clear()


@pytest.mark.parametrize("name", ["a.py", "inner/b.py", "c.py"])
def test_a_change_of_what_is_imported_counts(library, name):
    before = digest("lib.a")
    (library / name).write_text((library / name).read_text() + "CHANGED = 1\n")
    assert digest("lib.a") != before


def test_a_stage_may_be_in_a_script_of_its_own(library, tmp_path):
    (tmp_path / "script.py").write_text("from lib.inner import b\n")
    before = digest("script")
    (library / "c.py").write_text("CHANGED = 1\n")
    assert digest("script") != before


DOCUMENTED = '''
"""A module."""

from pydantic import Field

# A comment.
class Config:
    """A class."""

    number: int = Field(3, gt=0, description="the number")
    """A field."""

def f():
    """A function."""
    return 3
'''


def test_texts_do_not_count(library):
    """A mended help text would train everything again."""
    (library / "c.py").write_text(DOCUMENTED)
    before = digest("lib.a")
    for text in ("A module", "A comment", "A class", "the number", "A field", "A function"):
        (library / "c.py").write_text(DOCUMENTED.replace(text, "Other words"))
        assert digest("lib.a") == before, text
    for number in ("Field(3", "gt=0", "return 3"):
        (library / "c.py").write_text(DOCUMENTED.replace(number, number[:-1] + "4"))
        assert digest("lib.a") != before, number


@pytest.mark.parametrize("name", ["d.py", "inner/__init__.py"])
def test_a_change_of_what_is_not_imported_does_not(library, name):
    before = digest("lib.a")
    (library / name).write_text("changed = True\n")
    assert digest("lib.a") == before


def test_what_is_left_of_a_folder_is_passed_over(library):
    before = digest("lib.a")
    (library / "c" / "__pycache__").mkdir(parents=True)
    assert digest("lib.a") == before


def test_nothing_is_imported(library):
    digest("lib.a")
    assert "lib" not in sys.modules


def test_what_carries_data_does_not_count(library):
    (library / "c.py").write_text("from lib.carrier import move\n")
    (library / "carrier.py").write_text("move = 1\n")
    before = digest("lib.a")
    (library / "carrier.py").write_text("move = 2\n")
    assert digest("lib.a") == before


STAGES = (
    sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in ROOT.glob("pipelines/*/stages/*.py")
        if path.stem != "__init__"
    )
    + [
        f"pipelines.{package}.{name}"
        for package, names in (
            ("data", ("prepare",)),
            ("density", ("preprocess", "train", "choose", "evaluate", "report")),
            ("paper", ("compare", "detect", "fill", "peer")),
            ("gradient_alignment", ("flow", "reference", "classify", "measure", "align")),
        )
        for name in names
    ]
    + ["tuning.search", "tuning.report"]
)


@pytest.mark.parametrize("stage", STAGES)
def test_no_import_of_a_stage_hides_the_code_that_it_runs(stage):
    """``ebflow`` resolves its public names when they are asked for."""
    package = keys._path("ebflow").read_text()
    for module in closure(stage):
        path = keys._path(module)
        for _, base, names in keys._parsed(path, None)[1]:
            hidden = [
                n for n in names if not (keys._path(f"ebflow.{n}") or f"\n{n} = " in package)
            ]
            assert base != "ebflow" or not hidden, f"{module}: {hidden}"


def test_the_stages_are_found():
    assert len(STAGES) > 15


@pytest.mark.parametrize(("stage", "module"), [
    ("pipelines.density.preprocess", "pipelines.training.preprocessing"),
    ("pipelines.density.train", "pipelines.config.training"),
    ("pipelines.density.train", "pipelines.training.flow_training"),
    ("pipelines.density.report", "pipelines.density.likelihoods"),
    ("pipelines.density.report", "pipelines.metrics_log"),
    ("pipelines.paper.peer", "pipelines.data.dataset"),
    ("pipelines.paper.compare", "pipelines.paper.rivals"),
    ("pipelines.paper.fill", "ebflow.train"),
    ("pipelines.paper.fill", "pipelines.data.dataset"),
    ("pipelines.gradient_alignment.align", "pipelines.gradient_alignment.questions"),
    ("pipelines.sample_complexity.learn", "pipelines.sample_complexity.far_mode"),
    ("pipelines.sample_complexity.conclude", "pipelines.sample_complexity.claims"),
    ("tuning.search", "tuning.space"),
    ("tuning.search", "pipelines.training.flow_training"),
    ("tuning.report", "tuning.trials"),
])  # fmt: skip
def test_a_stage_follows_what_it_imports(stage, module):
    assert module in closure(stage)
    carriers = ("pipelines.store", "pipelines.tracking")
    writers = {"pipelines.store.files", "pipelines.tracking.run"}
    assert {name for name in closure(stage) if name.startswith(carriers)} == writers


def test_a_change_of_the_files_beside_the_code_counts(library):
    before = digest("lib.a")
    (library / "inner" / "__pycache__").mkdir()
    for name in (".swap", "#a.py#", "a.py~", "a.orig"):  # of editors, during a run
        (library / "inner" / name).write_bytes(b"1")
    assert digest("lib.a") == before
    (library / "inner" / "fitted.safetensors").write_bytes(b"1")
    added = digest("lib.a")
    (library / "inner" / "fitted.safetensors").write_bytes(b"2")
    assert len({before, added, digest("lib.a")}) == 3


def test_the_distributions_are_beside_code_that_is_imported():
    assert "ebflow.complexity.fitted" in closure("pipelines.sample_complexity.learn")


PAGES = ("density.report", "paper.compare", "sample_complexity.conclude",
         "gradient_alignment.align")  # fmt: skip


@pytest.mark.parametrize("stage", [*(f"pipelines.{name}" for name in PAGES), "tuning.report"])
def test_the_template_is_beside_code_that_every_page_imports(stage):
    assert "pipelines.reporting.page" in closure(stage)


def test_unknown_module(library):
    with pytest.raises(ModuleNotFoundError, match="lib.none"):
        digest("lib.none")


def test_the_report_does_not_stand_behind_the_training():
    from pipelines.density.graph import prepare, train

    assert {"ebflow.train", "ebflow.objectives"} <= closure("pipelines.training.loop").keys()
    for name in ("data.prepare", "density.evaluate", "density.report"):
        assert "ebflow.train" not in closure(f"pipelines.{name}")
    assert prepare.version != train.version
