"""The study of ``docs/howto/add-study.md`` runs as the page says."""

import json
import re
import sys
from pathlib import Path

import pytest

import pipelines
from pipelines.cli import main
from pipelines.engine import keys

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "add-study.md"
FILES = re.compile(r"`pipelines/circle/(\w+\.py)`.*?```python\n(.*?)```", re.DOTALL)
LINE = re.compile(r'"(run \w+)": \("(pipelines\.circle\.\S+)", "(.*)"\),')


@pytest.fixture
def circle(tmp_path, monkeypatch):
    """Adds the files and the line of the page."""
    for name, code in FILES.findall(PAGE.read_text()):
        file = tmp_path / "added" / "circle" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    monkeypatch.setattr(pipelines, "__path__", [*pipelines.__path__, str(tmp_path / "added")])
    path = keys._path

    def path_of(module):
        added = tmp_path.joinpath("added", *module.split(".")[1:]).with_suffix(".py")
        return added if added.is_file() else path(module)

    monkeypatch.setattr(keys, "_path", path_of)
    ((name, *entry),) = LINE.findall(PAGE.read_text())
    monkeypatch.setitem(main.COMMANDS, name, tuple(entry))
    yield file.parent
    for module in [name for name in sys.modules if name.startswith("pipelines.circle")]:
        del sys.modules[module]


@pytest.mark.system
def test_a_study_is_four_files_and_a_line(circle, ebflow, home, without_ray):
    assert len(list(circle.iterdir())) == 4
    done = ebflow("run", "circle", "--points", 1000)
    assert done.code == 0, done.err
    results = home.parent / "here" / "runs" / "circle" / "circle"
    assert "π from random points" in (results / "report.html").read_text()
    assert abs(json.loads((results / "summary.json").read_text())["study/pi"] - 3.14) < 0.3
    dry = ebflow("run", "circle", "--points", 1000, "--dry-run")
    assert [line.split()[-1] for line in dry.out[-2:]] == ["cached", "cached"]
