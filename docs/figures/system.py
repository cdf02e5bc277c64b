"""Draws ``system.png``: how the library, the stages, Ray, the store and MLflow fit together.

``python docs/figures/system.py`` takes some seconds.
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pipelines.reporting.style import BASELINE, DATA, FLOW, panels

HERE = Path(__file__).parent
PALE = {FLOW: "#dbe7f4", DATA: "#ececec", BASELINE: "#f8e3db"}


def draw() -> None:
    """Draws boxes from the command at the top to the results at the bottom."""
    figure, axis = panels(1, 6.4, 6.6)
    axis.set(xlim=(0, 100), ylim=(0, 104))
    axis.axis("off")
    box(axis, (0, 90, 47, 14), FLOW, "notebook", "import ebflow")
    box(axis, (53, 90, 47, 14), BASELINE, "command line", "ebflow run · tune · submit")
    stages(axis)
    box(axis, (53, 40, 47, 12), BASELINE, "Ray runs the stages", "this machine, or a cluster")
    text = "tables · flows · objectives\nfit · sample · explain\n\nneeds neither Ray\nnor MLflow"
    box(axis, (0, 45, 47, 27), FLOW, "the library ebflow", text)
    box(axis, (0, 8, 30, 20), DATA, "store", "each stage's output,\nby a key; checkpoints")
    box(axis, (35, 8, 30, 20), DATA, "MLflow", "runs, curves,\nregistered models")
    box(axis, (70, 8, 30, 20), DATA, "the run's folder", "report.html\nsummary.json\ncheckpoint/")
    for start, end in (
        ((23, 90), (23, 73)),
        ((76, 90), (76, 84.5)),
        ((76, 61.5), (76, 53)),
        ((53, 66), (47.8, 66)),
        ((60, 40), (20, 28.5)),
        ((70, 40), (52, 28.5)),
        ((80, 40), (85, 28.5)),
    ):
        axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.3", "lw": 1.2})
    axis.text(50, 2, "a second run takes finished stages from the store", ha="center", fontsize=10)
    figure.savefig(HERE / "system.png")


def stages(axis: Axes) -> None:
    """Draws the stages of a pipeline, each a small box."""
    box(axis, (53, 62, 47, 22), BASELINE, "stages", "")
    for k, name in enumerate(("prepare", "preprocess", "train", "evaluate", "report")):
        across, down = (60, 76, 92, 68, 85)[k], 8 * (k > 2)
        axis.text(
            across, 74 - down, name, ha="center", va="center", fontsize=9,
            bbox={"boxstyle": "round,pad=0.3", "fc": "white", "ec": BASELINE},
        )  # fmt: skip


def box(
    axis: Axes, place: tuple[float, float, float, float], colour: str, title: str, text: str
) -> None:
    """Draws a box with a bold title at its top."""
    x, y, width, height = place
    axis.add_patch(Rectangle((x, y), width, height, fc=PALE[colour], ec=colour))
    axis.text(x + width / 2, y + height - 2, title, ha="center", va="top", fontsize=11,
              fontweight="bold")  # fmt: skip
    axis.text(x + width / 2, y + height - 8, text, ha="center", va="top", fontsize=10)


if __name__ == "__main__":
    draw()
