"""A study is a room of its own and an entry of a table: all else follows from these."""

from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Literal

import pytest
from pydantic import Field

from pipelines.cli import main
from pipelines.cli.studies import STUDIES, Study
from pipelines.config import NAME, Section


class ToyConfig(Section):
    """What the toy study is told."""

    scale: Literal["smoke", "cpu"] = Field("cpu", description="how long it takes")
    name: str = Field("toy", pattern=NAME, description="name of the run")
    points: int = Field(100, ge=1, description="points that are measured")


def at_scale(scale):
    return ToyConfig(scale=scale, points={"smoke": 5, "cpu": 100}[scale])


GRAPH = SimpleNamespace(name="toy")


@pytest.fixture
def toy(monkeypatch):
    """Enters a study whose room is this module."""
    study = Study("toy", f"{__name__}:GRAPH", f"{__name__}:at_scale", "toys", "Counts toys.")
    monkeypatch.setitem(main.COMMANDS, "run toy", study)
    return study


def carried_out(study, *words):
    """Returns a run, its options and a line on what was chosen, of the words of a command."""
    found = []
    study.run(words, carry_out=lambda *given: found.extend(given))
    return found


def test_an_entry_makes_a_command(toy, ebflow, capsys):
    assert "ebflow run toy" in ebflow("--help").text
    with pytest.raises(SystemExit):
        ebflow("run", "toy", "--help")
    printed = capsys.readouterr().out
    for text in ("usage: ebflow run toy", "Counts toys.", "points that are measured", "--force",
                 "folder for the results"):  # fmt: skip
        assert text in printed
    assert "unknown --pionts" in ebflow("run", "toy", "--pionts", "3").err[0]
    line = "--points: found 0, expected greater than or equal to 1"
    assert line in ebflow("run", "toy", "--points", "0").err[0]


def test_options_go_over_a_file_which_goes_over_a_scale(toy, tmp_path):
    run, options, line = carried_out(toy, "--scale", "smoke", "--force")
    assert run.config == at_scale("smoke") and run.pipeline is GRAPH and options.force
    assert line == "toy at scale smoke"
    assert str(run.output) == "runs/toy/toy" and run.command == (
        "ebflow run toy --scale smoke --force"
    )
    (tmp_path / "toy.yaml").write_text("points: 7\nname: mine\n")
    words = ("--scale", "smoke", "--config", str(tmp_path / "toy.yaml"))
    assert carried_out(toy, *words)[0].config == at_scale("smoke").changed(points=7, name="mine")
    assert carried_out(toy, *words, "--points", "8")[0].config.points == 8


def test_a_scale_that_is_none_is_told(toy, ebflow):
    assert "--scale: found 'huge', expected" in ebflow("run", "toy", "--scale", "huge").err[0]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_what_an_entry_names_is_there(study):
    found = resolve_name(study.graph)
    assert found.name == study.name and study.base().scale == "cpu"
