"""The time of a training step of every objective on one net."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from pipelines.paper.benchmark.cases import Case, convolutional_cases, dense_cases
from pipelines.paper.benchmark.costs import measured_peak
from pipelines.paper.benchmark.timing import benchmark
from pipelines.paper.config import StepsConfig
from pipelines.tracking import StageRun

OBJECTIVES = ("ml", "sml", "lazy_ml", "ssm_vr", "ssm", "dsm", "fd_ssm", "taylor_sm")
DENSE = ("relative_ml", "exact_sm")
"""What is of no use to a convolution: the one is ml there, the other has D tangents."""

VARIED = {"FC": ("ml", "lazy_ml", "dsm"), "CNN": ("ml", "dsm")}
"""The objectives of variants of a net."""

KERNEL = 7


def steps(config: StepsConfig, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes ``timings.json``: the fields of ``Timing``, objective by objective.

    It is to be the only stage that runs.
    """
    run.log_params(config.model_dump())
    torch.set_num_threads(config.threads)
    timings = benchmark(
        cases(config), peak=measured_peak(), batch=config.batch, seconds=config.seconds
    )
    rows = [asdict(timing) for timing in timings]
    (output / "timings.json").write_text(json.dumps(rows, indent=1) + "\n")
    run.log_metrics(
        {f"time/step_ms/{row['label'].replace(' + ', '_')}": row["ms"] for row in rows}
    )


def cases(config: StepsConfig) -> list[Case]:
    """Returns the cases; a plain convolution pads with zeros."""
    plain, dense = config.variant == "plain", config.net == "FC"
    names = (*OBJECTIVES, *(DENSE if dense else ())) if plain else VARIED[config.net]
    options = {"batch": config.batch, "objectives": names}
    if dense:
        options |= {} if plain else {"activation": config.variant}
        return dense_cases(config.channels * config.side**2, **options)
    options |= {} if plain else {"padding": config.variant}
    return convolutional_cases((config.channels, config.side, config.side), KERNEL, **options)
