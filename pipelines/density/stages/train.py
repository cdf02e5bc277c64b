"""From prepared data to a trained flow."""

__all__ = ["train"]

import json
import shutil
import time
from pathlib import Path
from typing import Any

from ebflow.checkpoint import check
from ebflow.data.manifest import Manifest
from ebflow.execution import Checkpoints
from pipelines import store
from pipelines.config import Training
from pipelines.tracking import Follower, StageRun
from pipelines.training import metrics_log
from pipelines.training.loop import CHECKPOINTS, fit
from pipelines.training.preprocessing import CHAIN
from pipelines.training.watchdog import HUNG


def train(
    config: Training, data: Path, front: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes ``checkpoint/`` (the best by validation), ``last/``, the rows and ``training.json``.

    Raises:
        NonFinite: If a loss or likelihood was not finite, and the training was not to be tried
            again, or had no validation before; the last good checkpoint stays.
    """
    run.log_params(config.model_dump())
    run.log_input(Manifest.load(data), "training")
    store.regain(work / metrics_log.FILE)
    began = time.time()
    with run.watching(), Follower(work / metrics_log.FILE, run):
        try:
            told = fit(config, data, front / CHAIN, work)
        finally:
            for path in work.glob(HUNG):
                run.log_artifacts(path, "hung")
    store.restore(work / CHECKPOINTS)
    _keep(Checkpoints(work / CHECKPOINTS), told, output)
    run.log_artifacts(output / "checkpoint", "checkpoint")
    shutil.copy(work / metrics_log.FILE, output)
    summary = _summary(told, told["began"] - began, time.time() - began)
    (output / "training.json").write_text(json.dumps(summary, indent=1) + "\n")
    run.log_metrics(summary["metrics"])
    run.set_tags({"ebflow.verdict": summary["verdict"]})


def _keep(checkpoints: Checkpoints, told: dict[str, Any], output: Path) -> None:
    """Copies the best checkpoint and the last; raises BadInput if one has been damaged since."""
    for name, step in (("checkpoint", told["best_step"]), ("last", told["steps"])):
        shutil.copytree(checkpoints.path(step), output / name)
        check(output / name)


def _summary(told: dict[str, Any], startup: float, total: float) -> dict[str, Any]:
    """Returns the seconds of the training loop as shares, and start-up apart from them."""
    seconds = told["seconds"]
    loop = sum(seconds.values())
    busy = seconds["step"] + seconds["data"]
    shares = {f"time/share_{name}": spent / loop for name, spent in sorted(seconds.items())}
    return {
        "verdict": told["verdict"],
        "warnings": told["warnings"],
        "metrics": {
            "train/steps": told["steps"],
            "train/best_step": told["best_step"],
            "train/steps_per_s": told["steps"] / busy,
            "time/train_s": busy,
            "time/loop_s": loop,
            "time/startup_s": startup,
            "time/total_s": total,
            "time/share_outside_step": 1 - seconds["step"] / loop,
            **shares,
        },
    }
