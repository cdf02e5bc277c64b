"""What stages tell their runs as they begin with data, and as they end with metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ebflow.data.loader import Dataset
from ebflow.files import write_json
from pipelines.config import Section
from pipelines.tracking import StageRun


def begun(config: Section, threads: int, data: Path, run: StageRun, context: str) -> Dataset:
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


def written(metrics: Mapping[str, float], output: Path, run: StageRun, **more: Any) -> None:  # noqa: ANN401
    """Writes metrics, and what else is given, into ``evaluation.json``, and tells the run them."""
    write_json(output / "evaluation.json", {**more, **metrics})
    run.log_metrics(metrics)
