"""What stages report: the data that they begin with, how far they are, and metrics at the end."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pipelines.config import Section
from pipelines.data.dataset import Dataset
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

Progress = Callable[[float, str], None]
"""Reports the share of a stage that is done, and what it does now."""


def begin(config: Section, threads: int, data: Path, run: StageRun, context: str) -> Dataset:
    """Returns prepared data, of which a stage's run is told, as of its configuration.

    Arguments:
        config: The stage's.
        threads: That it computes with.
        data: The folder of the data.
        run: The stage's run.
        context: What they are for: ``training`` or ``testing``.
    """
    torch.set_num_threads(threads)
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    run.log_input(dataset.manifest, context)
    return dataset


def write_metrics(metrics: Mapping[str, float], run: StageRun, **more: Any) -> None:  # noqa: ANN401
    """Writes metrics, and what else is given, into ``evaluation.json``, and tells the run them."""
    write_json(run.output / "evaluation.json", {**more, **metrics})
    run.log_metrics(metrics)
