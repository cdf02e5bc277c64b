"""A study is a package and a line of the registry; its command follows from these."""

from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Literal

import pytest
from pydantic import Field

from ebflow.errors import BadInput
from pipelines.cli import main
from pipelines.config.section import NAME, Section


class ToyConfig(Section):
    """Counts toys."""

    scale: Literal["smoke", "cpu"] = Field("cpu", description="how long it takes")
    name: str = Field("toy", pattern=NAME, description="name of the run")
    points: int = Field(100, ge=1, description="points that are measured")


GRAPH = SimpleNamespace(name="toy", config=ToyConfig)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """Registers a study whose pipeline is in this module."""
    monkeypatch.setitem(main.COMMANDS, "run toy", (f"{__name__}:GRAPH", "counts toys"))


def asked(*words):
    return main.parse_run("run toy", words)


def test_a_line_of_the_registry_makes_a_command(ebflow):
    assert "ebflow run toy" in ebflow("--help").text
    printed = ebflow("run", "toy", "--help").text
    for text in ("usage: ebflow run toy", "Counts toys.", "points that are measured", "--force",
                 "folder for the results"):  # fmt: skip
        assert text in printed
    assert "Unrecognized options: --pionts" in ebflow("run", "toy", "--pionts", "3").refusal
    line = "--points: found 0, expected at least 1"
    assert line in ebflow("run", "toy", "--points", "0").refusal
    assert "invalid choice 'huge'" in ebflow("run", "toy", "--scale", "huge").refusal


def test_options_go_over_a_file(tmp_path, monkeypatch):
    home = tmp_path / "store"
    monkeypatch.setenv("EBFLOW_HOME", str(home))
    request = asked("--scale", "smoke", "--force")
    run, options, line = request.run, request.options, request.line
    assert run.config == ToyConfig(scale="smoke") and run.pipeline is GRAPH and options.force
    assert line == "toy at scale smoke" and str(run.output) == "runs/toy/toy"
    assert (
        run.command
        == f"cd {Path.cwd()} && EBFLOW_HOME={home} ebflow run toy --scale smoke --force"
    )
    (tmp_path / "toy.yaml").write_text("points: 7\nname: mine\n")
    words = ("--scale", "smoke", "--config", str(tmp_path / "toy.yaml"))
    assert asked(*words).run.config == ToyConfig(scale="smoke", points=7, name="mine")
    assert asked(*words, "--points", "8").run.config.points == 8


def test_a_file_of_another_scale_is_refused(tmp_path):
    """A file that a run left has all values of its scale, which would replace those of this."""
    file = tmp_path / "toy.yaml"
    file.write_text("scale: smoke\npoints: 7\n")
    with pytest.raises(BadInput, match="--scale: found cpu with .*toy.yaml, which has scale smok"):
        asked("--scale", "cpu", "--config", str(file))
    for words in ((), ("--scale", "smoke")):
        assert asked(*words, "--config", str(file)).run.config.points == 7


@pytest.mark.parametrize("name", ["paper", "gradient-alignment", "sample-complexity"])
def test_the_registered_pipelines_exist(name):
    pipeline = resolve_name(main.COMMANDS[f"run {name}"][0])
    assert pipeline.name == name and pipeline.config().scale == "cpu"
