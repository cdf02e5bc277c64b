"""From prepared data to a trained flow."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import metrics_log
from pipelines.config import Training
from pipelines.data.dataset import Dataset
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun
from pipelines.training.flow_training import fit
from pipelines.training.loop import export_checkpoints
from pipelines.training.preprocessing import COLUMNS, NUMBERS, PREPROCESSING


def train(config: Training, data: Path, preprocessed: Path, *, run: StageRun) -> None:
    """Writes ``checkpoint/`` (the best by validation), ``last/``, metrics and ``training.json``.

    Beside them are descriptions of the preprocessing.

    Raises:
        NonFinite: If a loss or likelihood was not finite, and the configuration forbids a retry,
            or no validation came before; the last good checkpoint stays.
    """
    run.open(config, Dataset(data))
    started = time.time()
    result = fit(config, data, preprocessed / PREPROCESSING, run.work, run.reporter)
    run.reporter.finish()
    export_checkpoints(
        run.work, {"checkpoint": result["best_step"], "last": result["steps"]}, run.output
    )
    run.log_artifacts(run.output / "checkpoint", "checkpoint")
    shutil.copy(run.work / metrics_log.FILE, run.output)
    summary = _summary(result, result["began"] - started, time.time() - started)
    summary["model"] = {"method": config.method, "architecture": config.model.architecture,
                        "base": config.model.base}  # fmt: skip
    summary["smoothing"] = config.smoothing
    for name in (COLUMNS, NUMBERS):
        shutil.copy(preprocessed / name, run.output)
    write_json(run.output / "training.json", summary)
    run.log_metrics(summary["metrics"])
    run.set_tags({f"ebflow.{name}": summary[name] for name in ("verdict", "workers")})


def _over_time(workers: Mapping[int, int]) -> str:
    """Returns the numbers of workers by the steps from which on they trained, as a line."""
    first, *later = sorted(workers.items())
    return ", ".join([f"{first[1]}", *(f"{count} from step {step}" for step, count in later)])


def _summary(result: dict[str, Any], startup: float, total: float) -> dict[str, Any]:
    """Returns the seconds of the training loop as shares, and start-up apart from them."""
    seconds = result["seconds"]
    loop = sum(seconds.values())
    busy = seconds["step"] + seconds["data"]
    shares = {f"time/share_{name}": spent / loop for name, spent in sorted(seconds.items())}
    return {
        "verdict": result["verdict"],
        "warnings": result["warnings"],
        "workers": _over_time(result["workers"]),
        "metrics": {
            "train/steps": result["steps"],
            "train/time_limited": float(result["limited"]),
            "train/best_step": result["best_step"],
            "val/rows": result["validation_rows"],
            "train/steps_per_s": result["steps"] / busy,
            "time/train_s": busy,
            "time/loop_s": loop,
            "time/startup_s": startup,
            "time/total_s": total,
            "time/share_outside_step": 1 - seconds["step"] / loop,
            **shares,
        },
    }
