"""What runs of all pipelines draw and print alike."""

import io
import json
from types import SimpleNamespace

import matplotlib
from matplotlib.figure import Figure

from pipelines.paper.config import PaperConfig
from pipelines.reporting import claims, studies
from pipelines.reporting.result import Table
from pipelines.reporting.style import STYLE, draw, panels, save
from pipelines.reporting.terminal import show_run, table, terminal


class Run:
    """A run that remembers what is logged."""

    def __init__(self, output):
        self.output, self.logged = output, []

    def log_params(self, params):
        self.params = params

    def log_artifacts(self, path, folder=None):
        self.logged.append((path.name, folder))


def test_figures_are_drawn_in_the_projects_style(tmp_path):
    figure = Figure()
    assert draw({"one": figure}, tmp_path) == {"one": tmp_path / "figures" / "one.png"}
    assert figure.dpi == STYLE["figure.dpi"] != matplotlib.rcParamsDefault["figure.dpi"]
    assert (tmp_path / "figures" / "one.png").stat().st_size > 1_000


def test_a_study_leaves_a_page_figures_and_numbers(tmp_path):
    made, left = tmp_path / "made", tmp_path / "left"
    made.mkdir(), left.mkdir()
    run, conclusion = Run(made), claims.Conclusion(("It grows.",), (), (), ("More seeds.",))
    tables = [Table("Errors", ("m", "error"), [("16", "0.35")])]
    studies.write(
        run, PaperConfig(), "A study", "What & how.", conclusion,
        {"scaling": (panels()[0], "m against R.")}, tables, {"cost": 3},
    )  # fmt: skip
    assert run.params["experiment"] == "table" and run.logged == [("made", None)]
    found = claims.publish(SimpleNamespace(path=made), left)
    assert found == {"cost": 3, **json.loads(json.dumps(vars(conclusion)))}
    page = (left / "report.html").read_text()
    for part in ("What &amp; how.", "It grows.", '<figure id="scaling">', "m against R.", "0.35"):
        assert part in page
    assert [path.name for path in (left / "figures").iterdir()] == ["scaling.png"]


def test_where_everything_is_stands_last_in_one_column():
    console = terminal(width=40, file=io.StringIO())
    summary = {"stages": {"train": "ran", "report": "cached"}, "figures": "f", "report": "r"}
    show_run(console, summary, {"a long name": "x" * 60}, best="b")
    assert console.file.getvalue().splitlines() == [
        "a long name " + "x" * 60,
        "stages      train ran, report cached",
        "best        b",
        "figures     f",
        "report      r",
        "to look     ebflow ui",
    ]


def test_a_table_has_its_names_to_the_left_and_text_as_it_is():
    console = terminal(width=22, file=io.StringIO())
    console.print(table(("", "[nats]"), [("a flow given", "1.0"), ("[b]", "12.5 ± 0.1")]))
    found = [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]
    assert [line for line in found if "─" not in line] == [
        "              [nats]",
        " a flow          1.0",
        " given",
        " [b]      12.5 ± 0.1",
    ]


def test_a_figure_is_saved_as_matplotlib_saves_it(tmp_path):
    figure, axes = panels(2)
    for axis in axes:
        axis.plot([0, 1], [1, 3], label="line")
        axis.set(xlabel="x", ylabel="a long name", title="figure")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    save(figure, tmp_path / "once.png")
    figure.savefig(tmp_path / "twice.png")
    assert (tmp_path / "once.png").read_bytes() == (tmp_path / "twice.png").read_bytes()
