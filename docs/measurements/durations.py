"""Seconds of the commands that ``time.md`` lists, each in a store of its own.

    python docs/measurements/durations.py pen.csv --repeats 3

``pen.csv`` is the table penbased of ``benchmark_tables.py`` as CSV. Prints the page's table.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

EBFLOW = Path(sys.executable).with_name("ebflow")


class Job(NamedTuple):
    """A command that is measured; ``{pen}`` in it is the CSV file."""

    name: str
    command: str


JOBS = (
    Job("first run", "run density --data.source wine --train.steps 300"),
    Job("cached run", "run density --data.source wine --train.steps 300"),
    Job("dry run", "run density --data.source wine --train.steps 300 --dry-run"),
    Job("list of runs", "runs"),
    Job("search", "tune density --data.source wine --trials 3 --top 2 --seeds 3 "
        "--train.max-seconds 1"),
    Job("larger run", "run density --data.source {pen} --name pen"),
    Job("score", "score runs/density/pen {pen} --output scores.parquet"),
    Job("sample", "sample runs/density/pen -n 10000 --output samples.parquet"),
)  # fmt: skip


def measure(job: Job, pen: Path, folder: Path) -> float:
    """Returns the seconds of a command in a folder, which gets its store.

    Raises:
        CalledProcessError: If the command fails.
    """
    words = [EBFLOW, *shlex.split(job.command.format(pen=shlex.quote(str(pen))))]
    environment = {name: value for name, value in os.environ.items() if name != "EBFLOW_HOME"}
    started = time.monotonic()
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    return time.monotonic() - started


def rows(jobs: Sequence[Job], pen: Path, repeats: int) -> list[str]:
    """Returns the rows of the page's table: the median of all repetitions, and all of them."""
    found: dict[str, list[float]] = {job.name: [] for job in jobs}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for job in jobs:
                found[job.name].append(measure(job, pen, Path(folder)))
                print(f"{job.name}: {found[job.name][-1]:.1f} s", file=sys.stderr, flush=True)
    lines = ["| job | command | seconds | all |", "|---|---|---|---|"]
    for job in jobs:
        command, seconds = job.command.format(pen=pen.name), found[job.name]
        every = ", ".join(f"{one:.1f}" for one in seconds)
        lines.append(f"| {job.name} | `ebflow {command}` | {median(seconds):.1f} | {every} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pen", type=Path, help="penbased as a CSV file")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("\n".join(rows(JOBS, options.pen.absolute(), options.repeats)))
