"""One cell of the study of sample complexity: from a draw to the errors of what was learnt."""

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch

from pipelines.sample_complexity.cell_functions import BODIES
from pipelines.sample_complexity.config import CellConfig
from pipelines.tracking import StageRun

ROWS, COST = "rows.parquet", "cost.json"


def learn(cell: CellConfig, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes ``rows.parquet``, and ``cost.json``: when it ran, and its processor time in s."""
    torch.set_num_threads(1)
    run.log_params({"kind": type(cell).__name__, **cell.model_dump()})
    began, busy = time.time(), time.process_time()
    rows = BODIES[type(cell)](cell)
    pq.write_table(rows, output / ROWS)
    cost = {
        "kind": type(cell).__name__,
        "rows": len(rows),
        "began": began,
        "ended": time.time(),
        "cpu_s": time.process_time() - busy,
    }
    (output / COST).write_text(json.dumps(cost) + "\n")
    run.log_metrics({"study/rows": len(rows), "study/cpu_s": cost["cpu_s"]})
