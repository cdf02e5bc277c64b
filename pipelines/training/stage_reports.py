"""What stages report: the data that they begin with, how far they are, and metrics at the end."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pipelines.cluster import store_writer
from pipelines.config import Section
from pipelines.data.dataset import Dataset
from pipelines.store.files import write_json
from pipelines.tracking import metrics_log
from pipelines.tracking.run import StageRun

REPORT_S = 1.0

Report = Callable[[float, str], None]
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


def reporter(work: Path) -> Report:
    """Returns what shows the user how far a stage is, by a file in its folder of work.

    It does so once a second at most, and whenever the stage does something else.
    """
    last, known = -math.inf, ""

    def report(share: float, text: str) -> None:
        nonlocal last, known
        if (now := time.monotonic()) - last >= REPORT_S or text != known:
            last, known = now, text
            row = metrics_log.row("stage", 0, share, text=text)
            store_writer.append(work / metrics_log.FILE, [row])

    return report


def write_metrics(metrics: Mapping[str, float], run: StageRun, **more: Any) -> None:  # noqa: ANN401
    """Writes metrics, and what else is given, into ``evaluation.json``, and tells the run them."""
    write_json(run.output / "evaluation.json", {**more, **metrics})
    run.log_metrics(metrics)
