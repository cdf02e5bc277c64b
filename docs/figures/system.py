"""Draws the parts of the system, the life of a run, and what the store contains.

``python docs/figures/system.py`` writes ``system.png``, ``life.png`` and ``store.png`` in seconds.
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pipelines.reporting.style import BASELINE, DATA, FLOW, panels

HERE = Path(__file__).parent
PALE = {FLOW: "#dbe7f4", DATA: "#ececec", BASELINE: "#f8e3db"}


def parts() -> None:
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
        arrow(axis, start, end)
    axis.text(50, 2, "a second run takes finished stages from the store", ha="center", fontsize=10)
    figure.savefig(HERE / "system.png")


LIFE = (
    (FLOW, "1  Check", "options, columns, rows: bad input\nends here, and nothing is written"),
    (FLOW, "2  Plan", "each stage gets a key: a hash of its\ncode, its options and its inputs"),
    (DATA, "3  Look up", "the store has the key: the stage is\ndone, in a moment"),
    (BASELINE, "4  Queue", "otherwise it waits until Ray has\nthe CPUs, GPUs and memory it needs"),
    (BASELINE, "5  Work", "Ray starts it on a node; a training\nwrites checkpoints as it goes"),
    (BASELINE, "6  Recover", "after a kill of worker, driver or\nnode: from the last checkpoint"),
    (DATA, "7  Store", "the output gets its name once it is\ncomplete, with its SHA-256"),
    (FLOW, "8  Report", "summary, report, figures, checkpoint;\nMLflow has the same files"),
)


def life() -> None:
    """Draws the steps of a run in two columns, read downwards."""
    figure, axis = panels(1, 6.8, 5.2)
    axis.set(xlim=(0, 100), ylim=(0, 100))
    axis.axis("off")
    for k, (colour, title, text) in enumerate(LIFE):
        across, down = divmod(k, 4)
        box(axis, (52 * across, 80 - 26 * down, 48, 19), colour, title, text)
        if down < 3:
            arrow(axis, (52 * across + 24, 80 - 26 * down), (52 * across + 24, 73.5 - 26 * down))
    figure.savefig(HERE / "life.png")


STORE = (
    ("artefacts/", "outputs of finished stages", FLOW),
    ("    train/3f9c…/", "one folder for each key: its files never change", FLOW),
    ("    train/3f9c….json", "its record: SHA-256, sizes, times, MLflow run", FLOW),
    ("work/", "what unfinished stages resume from", BASELINE),
    ("    train/8a10…/checkpoints/", "the best and the last steps", BASELINE),
    ("locks/, ids/", "who works on a key now; the id of the store", DATA),
    ("logs/", "one log for each run", DATA),
    ("mlflow.db, mlartifacts/", "MLflow, unless there is a server", DATA),
)


def store() -> None:
    """Draws the folders of the store, a line each."""
    figure, axis = panels(1, 6.8, 3.7)
    axis.set(xlim=(0, 100), ylim=(0, 10 * len(STORE)))
    axis.axis("off")
    for k, (name, text, colour) in enumerate(reversed(STORE)):
        axis.add_patch(Rectangle((0, 10 * k + 0.6), 100, 8.8, fc=PALE[colour], ec="none"))
        weight = "normal" if name.startswith(" ") else "bold"
        axis.text(1.5, 10 * k + 5, name, va="center", family="monospace", fontsize=9.5,
                  fontweight=weight)  # fmt: skip
        axis.text(46, 10 * k + 5, text, va="center", fontsize=10)
    figure.savefig(HERE / "store.png")


def arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draws an arrow."""
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.3", "lw": 1.2})


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
    parts()
    life()
    store()
