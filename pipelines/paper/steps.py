"""The times of training steps on one network, as a stage."""

import torch

from pipelines.paper.config import StepsConfig
from pipelines.paper.timing import NETWORKS, benchmark, build, measured_peak
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

SQUARES = (512, 1024, 2048)  # Sides of the square products that measure the machine's rate


def steps(config: StepsConfig, *, run: StageRun) -> None:
    """Writes ``evaluation.json`` with milliseconds a step, and ``timings.json`` with all else.

    No other stage runs beside it on its node. Other work on the machine makes its times longer.
    """
    run.log_params(config.model_dump())
    torch.set_num_threads(config.threads)
    flow = build(NETWORKS[config.network], config.channels, config.side)
    peak = measured_peak([side for side in SQUARES if side <= config.square])
    rows = benchmark(
        flow, config.objectives, peak=peak, batch=config.batch, seconds=config.seconds
    )
    write_json(run.output / "timings.json", rows)
    run.write_metrics({f"time/step_ms/{row['label']}": row["ms"] for row in rows})
