"""Figures and tables that all pipelines share."""

import io
import json
from dataclasses import replace

from pipelines.paper.config import PaperConfig
from pipelines.reporting.claims import Conclusion
from pipelines.reporting.result import Result, Table, grid, markdown, plots, show
from pipelines.reporting.style import panels
from pipelines.reporting.terminal import terminal
from pipelines.tracking.backend import pages


class Run:
    """A run that remembers what is logged."""

    def __init__(self, output):
        self.output, self.logged, self.command = output, [], ""

    def log_params(self, params):
        self.params = params

    def log_artifacts(self, path, folder=None):
        self.logged.append((path.name, folder))


RESULT = Result(
    title="A study",
    intro="What & how.",
    conclusion=Conclusion(("It grows.",), (), (), ("More seeds.",)),
    warnings=["few seeds"],
    headline=Table("", ["net", "error"], [["dense", "0.5"]], "Mean error."),
    facts={"a long name": "x" * 60},
    metrics={"study/cost": 3.0},
    values={"rows": [1, 2], "seeds": 5},
)


def test_a_result_is_saved(tmp_path):
    run = Run(tmp_path)
    sections = [*plots({"scaling": (panels()[0], "m against R.")}),
                Table("Errors", ("m", "error"), [("16", "0.35")])]  # fmt: skip
    replace(RESULT, sections=sections).save(PaperConfig(), run)
    assert run.params["experiment"] == "table" and run.logged == [(tmp_path.name, None)]
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found == json.loads(json.dumps(RESULT.summary()))
    assert (found["seeds"], found["study/cost"], found["metrics"]) == (5, 3.0, ["study/cost"])
    page = (tmp_path / "report.html").read_text()
    for part in ("What &amp; how.", "It grows.", '<figure id="scaling">', "m against R.", "0.35"):
        assert part in page
    assert (tmp_path / "figures" / "scaling.png").stat().st_size > 1_000


def test_a_result_in_markdown():
    assert markdown(RESULT.summary()).split("\n\n") == [
        "Warning: few seeds",
        "It grows.",
        "| net | error |\n| --- | ---: |\n| dense | 0.5 |",
        "Mean error.",
        "More seeds.",
    ]


def test_a_result_on_a_terminal():
    console = terminal(width=40, file=io.StringIO())
    stages = {"train": "ran", "report": "cached"}
    files = {"best": "b", "report": "r"}
    show(console, {**RESULT.summary(), "name": "mine", "stages": stages, "files": files})
    lines = console.file.getvalue().splitlines()
    assert lines[:2] == ["mine: A study", "It grows."]
    assert lines[-6:] == [
        "warning 1   few seeds",
        "a long name " + "x" * 60,
        "stages      train ran, report cached",
        "best        b",
        "report      r",
        f"to look     {pages()}",
    ]


def test_a_table_has_its_names_to_the_left_and_text_as_it_is():
    console = terminal(width=22, file=io.StringIO())
    console.print(grid(("", "[nats]"), [("a flow given", "1.0"), ("[b]", "12.5 ± 0.1")]))
    found = [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]
    assert [line for line in found if "─" not in line] == [
        "              [nats]",
        " a flow          1.0",
        " given",
        " [b]      12.5 ± 0.1",
    ]
