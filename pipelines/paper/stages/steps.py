"""The time of a training step of every objective on one net."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from ebflow.architectures import convolutional, dense
from ebflow.flow import Flow
from ebflow.objectives import OBJECTIVES
from ebflow.randomness import generator
from pipelines.paper.benchmark import ANCHORED, benchmark, measured_peak
from pipelines.paper.config import StepsConfig
from pipelines.tracking import StageRun

BESIDE = ("dsm", "ssm")
"""Objectives that are timed beside an anchor too, of dense layers."""

USELESS = ("relative_ml", "exact_sm")
"""What is of no use to a convolution: the one is ml there, the other has D tangents."""

VARIED = {"FC": ("ml", "lazy_ml", "dsm"), "CNN": ("ml", "dsm")}
"""The objectives of variants of a net."""


def steps(config: StepsConfig, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes ``timings.json``: the fields of ``Timing``, objective by objective.

    It is to be the only stage that runs.
    """
    run.log_params(config.model_dump())
    torch.set_num_threads(config.threads)
    peak = measured_peak()
    timings = benchmark(net(config), labels(config), peak=peak, seconds=config.seconds)
    rows = [asdict(timing) for timing in timings]
    (output / "timings.json").write_text(json.dumps(rows, indent=1) + "\n")
    run.log_metrics(
        {f"time/step_ms/{row['label'].replace(' + ', '_')}": row["ms"] for row in rows}
    )


def net(config: StepsConfig) -> Flow:
    """Returns two dense layers, or the paper's CNN; a plain convolution pads with zeros."""
    plain, options = config.variant == "plain", {"noise": 0.1}
    options["generator"] = generator(0, "benchmark")
    if config.net == "FC":
        activation = "smooth_leaky_relu" if plain else config.variant
        return dense((config.channels * config.side**2,), activation=activation, **options)
    padding = "zero" if plain else config.variant
    shape = (config.channels, config.side, config.side)
    return convolutional(shape, kernel_size=7, padding=padding, **options)


def labels(config: StepsConfig) -> list[str]:
    """Returns the objectives that are timed."""
    names = tuple(OBJECTIVES) if config.variant == "plain" else VARIED[config.net]
    if config.net == "CNN":
        return [name for name in names if name not in USELESS]
    found = ((name, f"{name}{ANCHORED}") if name in BESIDE else (name,) for name in names)
    return [label for pair in found for label in pair]
