"""Writes ``docs/papers.md``, every item of the papers, from the results of their experiments.

::

    ebflow run paper --experiment all --scale cpu
    python docs/measurements/papers.py runs/paper/all/summary.json

The numbers are kept in ``papers.json``. A further summary replaces the items that it has.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.paper.everything.items import ITEMS

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
    """Returns the page of a run: its ``items``, and a line on the ``machine`` and scale."""
    parts = [INTRO]
    for letter, (title, authors, number, idea) in PAPERS.items():
        link = f"[arXiv:{number}](https://arxiv.org/abs/{number})"
        parts.append(f"## {title}\n\n{authors}, {link}. {idea}\n")
        lines = [_line(item) for item in run["items"] if item["id"].startswith(letter)]
        parts.append("\n".join([HEADINGS, *lines]) + "\n")
    parts.append(
        "## How we measured\n\n"
        f"{run['measured']} `python docs/measurements/papers.py SUMMARY…` writes this page. A "
        "verdict is that of all claims of an item; [verdicts](explanation/verdicts.md) explains "
        "them. Below scale full, published and measured numbers are of other data and lengths of "
        "training.\n"
    )
    return "\n".join(parts)


def _line(item: Mapping[str, str]) -> str:
    cells = [item[key].replace("|", "\\|") for key in ("id", "subject", "published", "measured")]
    return f"| {' | '.join(cells)} | {item['verdict']} | `{item['command']}` |"


def main(files: Sequence[str]) -> None:
    """Writes the numbers and the page."""
    found: dict[str, Mapping[str, str]] = {}
    measured = []
    for file in files:
        summary = json.loads(Path(file).read_text())
        found |= {item["id"]: item for item in summary["items"]}
        measured.append(summary["headline"]["note"])
    items = [found[item.id] for item in ITEMS if item.id in found]
    run = {"items": items, "measured": " ".join(dict.fromkeys(measured))}
    NUMBERS.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(run))


if __name__ == "__main__":
    main(sys.argv[1:])
