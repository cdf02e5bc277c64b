"""What stages tell as they begin with data, as they go on, and as they end with metrics."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ebflow.data.loader import Dataset
from ebflow.files import write_json
from pipelines.cluster import store_writer
from pipelines.config import Section
from pipelines.tracking import StageRun
from pipelines.training import metrics_log

TELL_S = 1.0

Tell = Callable[[float, str], None]
"""Is told the share of a stage that is done, and what it does now."""


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


def teller(work: Path) -> Tell:
    """Returns what tells the user how far a stage is, by a file in its folder of work.

    It does so once a second at most, and whenever the stage does something else.
    """
    told, known = -math.inf, ""

    def tell(share: float, text: str) -> None:
        nonlocal told, known
        if (now := time.monotonic()) - told >= TELL_S or text != known:
            told, known = now, text
            row = metrics_log.row("stage", 0, share, text=text)
            store_writer.append(work / metrics_log.FILE, [row])

    return tell


def write_metrics(metrics: Mapping[str, float], run: StageRun, **more: Any) -> None:  # noqa: ANN401
    """Writes metrics, and what else is given, into ``evaluation.json``, and tells the run them."""
    write_json(run.output / "evaluation.json", {**more, **metrics})
    run.log_metrics(metrics)
