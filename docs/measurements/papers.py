"""Writes ``docs/papers.md``, every item of the papers, from the results of their experiments.

::

    ebflow run paper --experiment all --scale smoke
    ebflow run sample-complexity
    python docs/measurements/papers.py runs/paper/all \\
        sample-complexity=runs/sample-complexity/study

The numbers are kept in ``papers.json``. A later folder replaces the items that it has. That of a
single study needs the study's name, as in ``pipelines.paper.everything.items``.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.paper.everything.items import ITEMS, items
from pipelines.reporting.page import machine

HERE = Path(__file__).parent
NUMBERS, PAGE = HERE / "papers.json", HERE.parent / "papers.md"

PAPERS = {
    "E": (
        "Training Energy-Based Normalizing Flow with Score-Matching Objectives",
        "Chao, Sun, Hsu, Kira, Lee, 2023",
        "2305.15267",
        "A normalizing flow is an energy-based model whose normalizer is known. A training step "
        "needs no determinant of its linear layers: O(D²) instead of O(D³). The likelihood stays "
        "exact.",
    ),
    "G": (
        "Improved Sample Complexity Bounds for Diffusion Model Training",
        "Gupta, Parulekar, Price, Xun, 2023; first called Sample-Efficient Training for Diffusion",
        "2311.13745",
        "The mean square error of a score needs polynomially many samples in R/σ. The error at "
        "all but a δ-fraction of points does not, and it suffices for sampling.",
    ),
    "S": (
        "Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability",
        "Srinivas, Fleuret, 2020",
        "2006.09128",
        "The logits of a classifier are unnormalized log-densities. Their gradients may show any "
        "pattern without a change of predictions; score matching gives them a meaning.",
    ),
}

INTRO = """# The three papers, item by item

Every method, table and figure of three papers, with what this project measures. Neither the page
nor the code is the authors'; that of the first paper is also called `ebflow`. One command measures
all items and writes a page with figures:

```sh
ebflow run paper --experiment all --scale smoke     # or cpu, full
```

The likelihoods of MNIST at the paper's length of training (E5) are on
[a page of their own](measurements/paper.md#the-published-table-at-its-length).
"""

HEADINGS = "| item | subject | the paper shows | measured | verdict | command |\n|" + "---|" * 6


def page(run: Mapping[str, Any]) -> str:
    """Returns the page of a run's ``items``."""
    parts = [INTRO]
    for letter, (title, authors, number, idea) in PAPERS.items():
        link = f"[arXiv:{number}](https://arxiv.org/abs/{number})"
        parts.append(f"## {title}\n\n{authors}, {link}. {idea}\n")
        lines = [_line(item) for item in run["items"] if item["id"].startswith(letter)]
        parts.append("\n".join([HEADINGS, *lines]) + "\n")
    machines = dict.fromkeys(item["machine"] for item in run["items"])
    parts.append(
        "## How we measured\n\n"
        "Each command has its scale; its defaults have the seeds. Machines: "
        f"{', '.join(machines)}. `python docs/measurements/papers.py` writes this page. A verdict "
        "is that of all claims of an item; [verdicts](explanation/verdicts.md) explains them. "
        "Below scale full, published and measured numbers are of other data and lengths of "
        "training.\n"
    )
    return "\n".join(parts)


def _line(item: Mapping[str, str]) -> str:
    cells = [item[key].replace("|", "\\|") for key in ("id", "subject", "published", "measured")]
    return f"| {' | '.join(cells)} | {item['verdict']} | `{item['command']}` |"


def entries(argument: str) -> dict[str, Mapping[str, str]]:
    """Returns the items of a folder of results by their names."""
    study, _, folder = argument.rpartition("=")
    summary = json.loads((Path(folder) / "summary.json").read_text())
    if not study:
        return {entry["id"]: entry for entry in summary["items"]}
    command = summary["command"].rpartition(" && ")[2]
    return {item.id: item.entry(summary, command) for item in items([study])}


def main(folders: Sequence[str]) -> None:
    """Writes the numbers and the page."""
    run = json.loads(NUMBERS.read_text())
    found = {entry["id"]: entry for entry in run["items"]}
    for folder in folders:
        measured = entries(folder).items()
        found |= {name: {**entry, "machine": machine()} for name, entry in measured}
    run = {"items": [found[item.id] for item in ITEMS if item.id in found]}
    NUMBERS.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(run))


if __name__ == "__main__":
    main(sys.argv[1:])
