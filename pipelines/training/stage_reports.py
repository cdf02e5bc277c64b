"""Reports of stages: their data at the start, and their metrics at the end."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pipelines.config import Section
from pipelines.data.dataset import Dataset
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

Progress = Callable[[float, str], None]
"""Reports the share of a stage that is done, and its present activity."""


def begin(config: Section, threads: int, data: Path, run: StageRun, context: str) -> Dataset:
    """Returns prepared data; logs them and the configuration to the run of a stage.

    Arguments:
        config: The configuration of the stage.
        threads: The threads of its computations.
        data: The folder of the data.
        run: The stage's run.
        context: The use of the data: ``training`` or ``testing``.
    """
    torch.set_num_threads(threads)
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    run.log_input(dataset.manifest, context)
    return dataset


def write_metrics(metrics: Mapping[str, float], run: StageRun, **more: Any) -> None:  # noqa: ANN401
    """Writes metrics and further values to ``evaluation.json``; logs the metrics to the run."""
    write_json(run.output / "evaluation.json", {**more, **metrics})
    run.log_metrics(metrics)
