"""The time of a training step of every objective on one net."""

__all__ = ["steps"]

import json
from dataclasses import asdict
from pathlib import Path

import torch

from pipelines.benchmark.cases import Case, dense_cases, image_cases
from pipelines.benchmark.costs import measured_peak
from pipelines.benchmark.timing import benchmark
from pipelines.config import StepsConfig
from pipelines.tracking import StageRun

OBJECTIVES = ("ml", "sml", "lazy_ml", "ssm_vr", "ssm", "dsm", "fd_ssm", "taylor_sm")
DENSE = ("relative_ml", "exact_sm")
"""What is of no use to a convolution: the one is ml there, the other has D tangents."""
KERNEL = 7


def steps(config: StepsConfig, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes ``timings.json``: the fields of ``Timing``, objective by objective.

    It is to be the only stage that runs.
    """
    run.log_params(config.model_dump())
    torch.set_num_threads(config.threads)
    timings = benchmark(
        _cases(config), peak=measured_peak(), batch=config.batch, seconds=config.seconds
    )
    rows = [{**asdict(timing), "label": timing.label.split(",")[0]} for timing in timings]
    (output / "timings.json").write_text(json.dumps(rows, indent=1) + "\n")
    run.log_metrics(
        {f"time/step_ms/{row['label'].replace(' + ', '_')}": row["ms"] for row in rows}
    )


def _cases(config: StepsConfig) -> list[Case]:
    """Returns the cases; a convolution pads with zeros."""
    if config.net == "FC":
        size = config.channels * config.side**2
        return dense_cases(size, batch=config.batch, objectives=(*OBJECTIVES, *DENSE))
    sides = [config.side]
    return image_cases(config.channels, sides, KERNEL, batch=config.batch, objectives=OBJECTIVES)[
        0
    ]
