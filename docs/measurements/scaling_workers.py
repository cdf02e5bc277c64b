"""Step times by workers: gradients summed over shards, against all-reduce (DDP, gloo).

::

    python docs/measurements/scaling_workers.py --output workers.json

Strong scaling has one batch for all workers, weak scaling one for each. ``step`` is the mean time
of a training step, ``sum`` that of the sum of its gradient alone: by the tree, or by one
all-reduce of equal size. Rounds alternate between the ways, and the fastest counts.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

from ebflow.architectures import ARCHITECTURES
from ebflow.objectives import ml
from ebflow.randomness import generator
from ebflow.recipes import recipe
from ebflow.tables.rows import Rows
from pipelines.training.flow_training import OPTIMIZERS, FlowTraining
from pipelines.training.losses import StabilizedLoss

SHARDS = 4  # A multiple of each number of workers
WORKERS = (1, 2, 4)
ROUNDS, STEPS, WARM_UP = 5, 40, 5


class Pair:
    """The data of a training: rows for its steps, and rows for validations that never come."""

    digest = ""

    def __init__(self, columns: int) -> None:
        rows = torch.randn(20_000, columns, generator=generator(0, "rows"))
        self.splits = {name: Rows(rows, name=name) for name in ("train", "validation")}

    def split(self, name: str) -> Rows:
        """Returns a split."""
        return self.splits[name]


def training_of(columns: int, batch: int, place: tuple[int, int], shards: int) -> FlowTraining:
    """Returns a training of the default flow of a table."""
    chosen = recipe((columns,), rows=20_000)
    flow = ARCHITECTURES[chosen.architecture](
        (columns,), **chosen.options, generator=generator(0, "weights")
    )
    return FlowTraining(
        flow, Pair(columns), loss=StabilizedLoss(ml), batch_size=batch, shard=place, shards=shards,
        optimizer=OPTIMIZERS["adam"],
    )  # fmt: skip


def measured(rank: int, world: int, folder: str, columns: int, batch: int) -> None:
    """Writes the times of one number of workers to a file, in milliseconds."""
    torch.set_num_threads(1)
    place, file = (rank, world), Path(folder) / f"{batch}-{world}"
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{file}.store", rank=rank, world_size=world
        )
    ways = {name: training_of(columns, batch, place, n)
            for name, n in {"all-reduce": 0, "shards": SHARDS}.items()}  # fmt: skip
    calls: dict[str, Callable[[], Any]] = {}
    for name, training in ways.items():
        batches = training.batches()
        calls[f"{name} step"] = lambda t=training, b=batches: t.train_step(next(b))
    size = 1 + sum(parameter.numel() for parameter in training.parameters)
    flat = [torch.zeros(size) for _ in range(SHARDS)]
    calls["shards sum"] = lambda: ways["shards"].shards.total(lambda shard: flat[shard.start])
    calls["all-reduce sum"] = lambda: torch.distributed.all_reduce(flat[0]) if world > 1 else None
    best = {name: min(times) for name, times in alternated(calls, world).items()}
    if rank == 0:
        file.with_suffix(".json").write_text(json.dumps({"parameters": size - 1, **best}))


def alternated(calls: dict[str, Callable[[], Any]], world: int) -> dict[str, list[float]]:
    """Returns the mean times of calls in several rounds, each of all calls in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for _ in range(WARM_UP):
                call()
            if world > 1:
                torch.distributed.barrier()
            start = time.perf_counter()
            for _ in range(STEPS):
                call()
            times[name].append(1e3 * (time.perf_counter() - start) / STEPS)
    return times


def rows(folder: Path, columns: int, batch: int) -> Iterator[dict[str, Any]]:
    """Yields the times of strong and weak scaling, for each number of workers."""
    for scaling in ("strong", "weak"):
        for world in WORKERS:
            size = batch * (world if scaling == "weak" else 1)
            words = (world, str(folder), columns, size)
            torch.multiprocessing.spawn(measured, words, nprocs=world)
            found = json.loads((folder / f"{size}-{world}.json").read_text())
            yield {"scaling": scaling, "workers": world, "batch": size, **found}
            (folder / f"{size}-{world}.store").unlink(missing_ok=True)


def main() -> None:
    """Prints the times as a table, and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("workers.json"))
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    folder = options.output.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for row in rows(folder, options.columns, options.batch):
        found.append(row)
        numbers = {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}
        print(numbers, flush=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
