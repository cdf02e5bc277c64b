"""What runs of all pipelines leave and print alike: the page, its figures, and where they are."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

PAGE, FIGURES = "report.html", "figures"


def publish(made: Path, folder: Path) -> None:
    """Copies page and figures from what a stage made into the folder of a run."""
    shutil.copy(made / PAGE, folder)
    shutil.copytree(made / FIGURES, folder / FIGURES)


def show(
    console: Console, summary: Mapping[str, Any], lines: Mapping[str, str], **more: str
) -> None:
    """Prints lines by their names: those given, the stages, more, and where everything is."""
    stages = ", ".join(f"{stage} {status}" for stage, status in summary["stages"].items())
    texts = {**lines, "stages": stages, **more, "figures": summary["figures"],
            "report": summary["report"], "to look": "ebflow ui"}  # fmt: skip
    width = max(map(len, texts))
    for name, text in texts.items():
        console.print(f"{name:<{width}} {text}", soft_wrap=True)
