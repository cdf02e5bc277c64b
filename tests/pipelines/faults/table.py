"""From the notes of the harness to a table: ``python -m tests.pipelines.faults.table FOLDER``."""

import json
import sys
from pathlib import Path

HEAD = ("fault", "what happens", "recovery", "steps repeated")


def table(folder):
    """Returns the faults noted in a folder as lines of Markdown."""
    found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    lines = [HEAD, ("---",) * len(HEAD)]
    for fault in found:
        seconds = "–" if fault["recovery"] is None else f"{fault['recovery']:.0f} s"
        lines.append((fault["fault"], fault["happens"], seconds, str(fault["lost"])))
    return ["| " + " | ".join(cells) + " |" for cells in lines]


if __name__ == "__main__":
    print("\n".join(table(sys.argv[1])))
