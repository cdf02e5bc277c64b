"""Measures how seconds, memory and bytes grow; writes the tables of ``scaling.md`` and its figure.

``rows`` are of a run, ``streams`` of commands on a trained flow. ``cells`` are of the plan of a
study, ``trials`` of a search, and ``nodes`` of Ray's fake cluster.

Run it on an idle machine, from the repository's root::

    python docs/measurements/scaling.py                                # 40 minutes on two cores
    python docs/measurements/scaling.py --quick                        # 5 minutes
    python docs/measurements/scaling.py --only rows --rows 100000000 --columns 10

Results of earlier calls stay in the folder: a call measures its sizes again, and no others.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch

PAGE = Path(__file__).with_suffix(".md")
FIGURE = PAGE.parents[1] / "figures/scaling.png"
CORES = os.cpu_count() or 1
MIB, INTERVAL_S = 2**20, 0.2
CHUNK = 1 << 17  # Rows of the generator at a time
SCORED = 20_000  # Rows whose scores are timed for the lower bound
TASKS = 1000  # Tasks whose overhead in redun is timed
IMPUTED = 0.01  # Rows whose values are imputed, as a share of those that are scored
METHODS = 5  # Cells of the study for each seed

QUICK = {"rows": [10_000, 100_000], "columns": [10], "cells": [10, 100], "trials": [10],
         "streams": [20_000, 200_000], "nodes": [1, 2], "seconds": 5}  # fmt: skip
FULL = {"rows": [10_000, 100_000, 1_000_000, 10_000_000], "columns": [10, 100],
        "cells": [10, 100, 1000, 3000], "trials": [10, 30, 100, 300],
        "streams": [200_000, 2_000_000], "nodes": [1, 2, 4], "seconds": 30}  # fmt: skip
MOST_VALUES = 200_000_000  # Numbers of a file that the full version writes

Result = dict[str, Any]


@dataclass
class Usage:
    """The resources that a command used, with all processes that it started."""

    wall: float = 0.0  #: Seconds
    cpu: float = 0.0  #: Seconds of all processes
    process: float = 0.0  #: The largest peak of a single process, in MiB
    tree: float = 0.0  #: The peak of the memory that processes do not share, in MiB
    lines: list[str] = field(default_factory=list)

    def numbers(self) -> Result:
        """Returns the numbers by name."""
        return {name: value for name, value in vars(self).items() if name != "lines"}


class Sampler:
    """A sampler of a process and all processes below it."""

    def __init__(self, pid: int) -> None:
        self.root, self.usage = psutil.Process(pid), Usage()
        self.seconds: dict[tuple[int, float], float] = {}

    def sample(self) -> None:
        """Adds the present state to the usage."""
        tree = 0.0
        try:
            processes = [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                memory, times = process.memory_info(), process.cpu_times()
                self.seconds[process.pid, process.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
            tree += (memory.rss - memory.shared) / MIB
            self.usage.process = max(self.usage.process, memory.rss / MIB)
        self.usage.tree = max(self.usage.tree, tree)
        self.usage.cpu = sum(self.seconds.values())


def ebflow(home: Path, *words: object, environment: Mapping[str, str] | None = None) -> Usage:
    """Runs a command with its store in a folder; returns what it used and printed."""
    command = [sys.executable, "-m", "pipelines.cli", *map(str, words)]
    print("ebflow", *words, flush=True)
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home,
        env={**os.environ, "EBFLOW_HOME": str(home / "store"), "OMP_NUM_THREADS": "1",
             "PYTHONPATH": str(PAGE.parents[2]), **(environment or {})},
    )  # fmt: skip
    sampler = Sampler(process.pid)
    reader = threading.Thread(target=lambda: sampler.usage.lines.extend(process.stdout or ()))
    reader.start()
    while process.poll() is None:
        sampler.sample()
        time.sleep(INTERVAL_S)
    reader.join()
    sampler.usage.wall = time.perf_counter() - start
    if process.returncode:
        sys.exit("".join(sampler.usage.lines[-20:]))
    return sampler.usage


def seconds(call: Callable[[], object]) -> float:
    """Returns the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def emptied(folder: Path) -> Path:
    """Returns a folder without content."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def stored(home: Path) -> int:
    """Returns the bytes of the artefacts below a folder."""
    return sum(path.stat().st_size for path in (home / "store/artefacts").rglob("*.*"))


# Rows and columns


def batches(rows: int, columns: int) -> Iterator[pa.RecordBatch]:
    """Yields rows of correlated columns in float32, every other one log-normal."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(columns, columns)).astype("f4") / columns**0.5
    names = [f"x{k}" for k in range(columns)]
    for first in range(0, rows, CHUNK):
        z = random.normal(size=(min(CHUNK, rows - first), columns)).astype("f4") @ mixing
        z[:, ::2] = np.exp(z[:, ::2] / 2)
        yield pa.record_batch([pa.array(column) for column in z.T], names=names)


def written(path: Path, found: Iterator[pa.RecordBatch]) -> None:
    """Writes batches as a Parquet file."""
    first = next(found)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_batch(first)
        for batch in found:
            writer.write_batch(batch)


def bound_of_rows(path: Path, checkpoint: Path, rows: int, budget: float) -> float:
    """Returns the seconds to read and write a file, to train, and to score its test rows."""
    import ebflow as library

    torch.set_num_threads(1)
    flow = library.load(checkpoint)
    source, copy = pq.ParquetFile(path), path.with_suffix(".copy")
    copied = seconds(lambda: written(copy, source.iter_batches(CHUNK)))
    copy.unlink()
    some = pa.Table.from_batches([next(source.iter_batches(SCORED))])
    flow.log_prob(some.slice(0, 100))
    return copied + budget + seconds(lambda: flow.log_prob(some)) * rows / 10 / len(some)


def measure_rows(folder: Path, rows: int, columns: int, budget: float) -> Result:
    """Measures ``ebflow run density`` on one file."""
    home = emptied(folder / "rows")
    source = home / "table.parquet"
    written(source, batches(rows, columns))
    name = f"{rows}x{columns}"
    used = ebflow(home, "run", "density", "--data.source", source, "--train.max-seconds", budget,
                  "--name", name)  # fmt: skip
    found = re.findall(r"^(\w+): done in ([\d.]+) s", "".join(used.lines), re.MULTILINE)
    result = {
        **used.numbers(),
        "stages": {stage: float(text) for stage, text in found},
        "store": stored(home) / source.stat().st_size,
        "bound": bound_of_rows(source, home / "runs/density" / name, rows, budget),
    }
    shutil.rmtree(home)
    return result


# Cells of a study


def bound_of_task() -> float:
    """Returns redun's CPU seconds for a task that does nothing and is not recorded."""
    from redun import Scheduler, task

    @task(namespace="scaling", cache=False, prov=False)
    def nothing(number: int) -> int:
        return number

    scheduler = Scheduler()
    scheduler.load()
    start = time.process_time()
    scheduler.run([nothing(number) for number in range(TASKS)])
    return (time.process_time() - start) / TASKS


def measure_cells(folder: Path, cells: int) -> Result:
    """Measures the plan of a study with so many cells."""
    used = ebflow(emptied(folder / "cells"), "run", "paper", "--experiment", "tables", "--scale",
                  "smoke", "--sources", "breast-cancer", "--seeds", -(-cells // METHODS),
                  "--dry-run")  # fmt: skip
    text = "".join(used.lines)
    jobs = sum(map(int, re.findall(r"^\w+ +(\d+) run", text, re.MULTILINE)))
    return {**used.numbers(), "jobs": jobs, "bound": jobs * bound_of_task()}


# Trials of a search


def measure_trials(folder: Path, trials: int, steps: int = 200) -> Result:
    """Measures a search of small trials; the bound is the steps alone, on all cores."""
    home = emptied(folder / "trials")
    words = ["density", "--data.source", "breast-cancer", "--train.steps", steps]
    ebflow(home, "run", *words, "--name", "one", "--rival", "None")  # as a trial
    one = json.loads((home / "runs/density/one/summary.json").read_text())
    used = ebflow(home, "tune", *words, "--trials", trials, "--random", trials // 2, "--top", 1,
                  "--name", "search")  # fmt: skip
    bound = trials * one["time/train_s"] / CORES
    return {**used.numbers(), "busy": used.cpu / used.wall / CORES, "bound": bound}


# Commands that read or write more rows than memory may hold

# Words after the model and the file of rows, and the share of rows that the command gets.
STREAMS = {
    "score": (("score", "{model}", "{rows}", "--output", "{output}"), 1),
    "score, two workers": (
        ("score", "{model}", "{rows}", "--output", "{output}", "--workers", "2"), 1
    ),
    "sample": (("sample", "{model}", "--rows", "{count}", "--output", "{output}"), 1),
    "impute": (
        ("impute", "{model}", "{rows}", "--output", "{output}", "--samples", "1"), IMPUTED
    ),
}  # fmt: skip


def measure_stream(folder: Path, rows: int, name: str) -> Result:
    """Measures a command on a file of rows; ``impute`` gets a gap in each row."""
    home, (words, share) = folder / "streams", STREAMS[name]
    model, source = home / "runs/density/streams", home / "rows.parquet"
    if not model.exists():
        written(emptied(home) / "train.parquet", batches(20_000, 10))
        ebflow(home, "run", "density", "--data.source", "train.parquet", "--train.max-seconds", 5,
               "--name", "streams")  # fmt: skip
    count = int(rows * share)
    found = batches(count, 10)
    written(source, map(with_gaps, found) if name == "impute" else found)
    places = {"model": model, "rows": source, "output": home / "out.parquet", "count": count}
    used = ebflow(home, *(word.format(**places) for word in words))
    return {**used.numbers(), "rows": count, "each": 1e6 * used.cpu / count}


def with_gaps(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns rows without their second value."""
    return batch.set_column(1, "x1", pa.nulls(len(batch), batch["x1"].type))


def stream_table(found: Mapping[str, Result]) -> str:
    """Returns the memory and CPU time of the commands."""
    lines = [["command", "rows", "seconds", "largest process (MiB)", "CPU µs a row"], ["---"] * 5]
    for size, one in found.items():
        columns = ("rows", "wall", "process", "each")
        lines.append([size.split(":")[0], *(amount(one[name]) for name in columns)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# Nodes of a cluster


def measure_nodes(folder: Path, nodes: int) -> Result:
    """Measures a study on nodes of one CPU each, which Ray fakes on this machine."""
    from ray.cluster_utils import Cluster

    home = emptied(folder / "nodes")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        used = ebflow(home, "run", "sample-complexity", "--scale", "smoke", environment={
            "RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled",
            "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": f"file://{home}/mlruns",
        })  # fmt: skip
    finally:
        cluster.shutdown()
    return used.numbers()


# The page


def amount(number: float) -> str:
    """Returns a number with three digits at most, for people."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


COMMON = {"wall": "seconds", "cpu": "CPU seconds", "process": "largest process (MiB)",
          "tree": "all processes (MiB)", "bound": "lower bound (s)"}  # fmt: skip
STAGES = ("prepare", "preprocess", "train", "evaluate", "report")


def numbers_of(item: tuple[str, Result]) -> list[int]:
    """Returns the sizes of a result as numbers."""
    return [int(number) for number in item[0].split(",")]


def table(names: Sequence[str], found: Mapping[str, Result], more: Mapping[str, str]) -> str:
    """Returns the results of one kind as a table."""
    columns = {**COMMON, **more}
    lines = [[*names, *columns.values()], ["---"] * (len(names) + len(columns))]
    for size, result in sorted(found.items(), key=numbers_of):
        sizes = [f"{number:,}" for number in numbers_of((size, result))]
        lines.append([*sizes, *(amount(result[name]) for name in columns)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def stage_table(found: Mapping[str, Result]) -> str:
    """Returns the seconds of each stage."""
    lines = [["rows", "columns", *STAGES], ["---"] * (2 + len(STAGES))]
    for size, result in sorted(found.items(), key=numbers_of):
        sizes = [f"{number:,}" for number in numbers_of((size, result))]
        lines.append([*sizes, *(amount(result["stages"][stage]) for stage in STAGES)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def node_table(found: Mapping[str, Result]) -> str:
    """Returns the seconds of a study by nodes."""
    lines = ["| nodes of one CPU | seconds |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {n} | {amount(one['wall'])} |" for n, one in found.items())])


def tables(results: Mapping[str, Mapping[str, Result]]) -> dict[str, str]:
    """Returns the tables of the page by their names in it."""
    rows = results.get("rows", {})
    return {
        "rows": table(["rows", "columns"], rows, {"store": "store / source"}),
        "stages": stage_table(rows),
        "streams": stream_table(results.get("streams", {})),
        "nodes": node_table(results.get("nodes", {})),
        "cells": table(["cells"], results.get("cells", {}), {"jobs": "jobs"}),
        "trials": table(["trials"], results.get("trials", {}), {"busy": "share of cores busy"}),
    }


def write_page(results: Mapping[str, Mapping[str, Result]]) -> None:
    """Puts the tables between their marks in the page."""
    text = PAGE.read_text()
    for name, content in tables(results).items():
        if not results.get({"stages": "rows"}.get(name, name)):
            continue  # the table of an earlier call stays
        before, mark, rest = text.partition(f"<!-- table {name} -->\n")
        text = f"{before}{mark}{content}\n{rest[rest.index('<!-- end -->') :]}"
    PAGE.write_text(text)


def draw(results: Mapping[str, Mapping[str, Result]]) -> None:
    """Draws seconds and memory against rows, and seconds against cells and trials."""
    from pipelines.reporting.style import BASELINE, FLOW, panels

    figure, axes = panels(width=5.5, height=12, down=4)
    times, memory, plans, searches = axes
    rows = {tuple(map(int, size.split(","))): one for size, one in results["rows"].items()}
    widths = sorted({size[1] for size in rows})
    for style, width in zip(("o-", "s--", "^:"), widths, strict=False):
        of_width = {size[0]: rows[size] for size in sorted(rows) if size[1] == width}
        for axis, what in ((times, "wall"), (memory, "process")):
            values = [one[what] for one in of_width.values()]
            axis.plot([*of_width], values, style, color=FLOW, label=f"{width} columns")
        bounds = [one["bound"] for one in of_width.values()]
        times.plot([*of_width], bounds, style, color=BASELINE, label=f"bound, {width}")
    for axis, kind, what in ((plans, "cells", "cpu"), (searches, "trials", "wall")):
        found = {int(size): one for size, one in results.get(kind, {}).items()}
        for name, colour, label in ((what, FLOW, "measured"), ("bound", BASELINE, "bound")):
            values = [found[size][name] for size in sorted(found)]
            axis.plot(sorted(found), values, "o-", color=colour, label=label)
    labels = {times: ("rows", "seconds"), memory: ("rows", "MiB of the largest process"),
              plans: ("cells", "CPU seconds of a plan"),
              searches: ("trials", "seconds of a search")}  # fmt: skip
    for axis, (across, up) in labels.items():
        axis.set(xlabel=across, ylabel=up, xscale="log")
        axis.set_ylim(bottom=0)
        axis.legend()
        axis.set_visible(any(len(line.get_xdata()) for line in axis.lines))
    figure.savefig(FIGURE)


MEASURES = {"cells": measure_cells, "trials": measure_trials, "nodes": measure_nodes}
KINDS = ("streams", *MEASURES)


def arguments() -> argparse.Namespace:
    """Returns the options of the command line, with the sizes of the version for the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: about 5 minutes")
    parser.add_argument("--only", nargs="*", default=["rows", *KINDS])
    for name in ("rows", "columns", *KINDS):
        parser.add_argument(f"--{name}", nargs="*", type=int)
    parser.add_argument("--seconds", type=float, help="of a training")
    parser.add_argument("--folder", type=Path, default=Path("runs/scaling"))
    options = parser.parse_args()
    options.given = {name for name in FULL if getattr(options, name) is not None}
    for name, value in (QUICK if options.quick else FULL).items():
        if name not in options.given:
            setattr(options, name, value)
    return options


def measurements(options: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], Result]]]:
    """Yields kinds, sizes, and functions that measure them."""
    folder = options.folder.absolute()
    for columns in options.columns if "rows" in options.only else ():
        for rows in options.rows:
            if rows * columns <= MOST_VALUES or "rows" in options.given:
                call = lambda n=rows, d=columns: measure_rows(folder, n, d, options.seconds)  # noqa: E731
                yield "rows", f"{rows},{columns}", call
    for name, rows in product(STREAMS, options.streams if "streams" in options.only else ()):
        call = lambda n=rows, what=name: measure_stream(folder, n, what)  # noqa: E731
        yield "streams", f"{name}:{rows}", call
    for kind, measure in MEASURES.items():
        for size in getattr(options, kind) if kind in options.only else ():
            yield kind, str(size), lambda n=size, call=measure: call(folder, n)


def main() -> None:
    """Measures, and writes the page after each result."""
    options = arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    saved = options.folder / "results.json"
    results = json.loads(saved.read_text()) if saved.exists() else {"rows": {}}
    for kind, size, measure in measurements(options):
        results.setdefault(kind, {})[size] = measure()
        saved.write_text(json.dumps(results, indent=1))
        write_page(results)
    if results["rows"]:
        draw(results)


if __name__ == "__main__":
    main()
