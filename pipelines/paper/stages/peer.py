"""From prepared data to a density of another package, and its exact likelihood."""

import json
import time
from pathlib import Path

import numpy as np
import torch

from ebflow.data.loader import Dataset
from ebflow.evaluation import Likelihood
from ebflow.preprocessing import Preprocessing
from pipelines.density.stages.evaluate import LOG_PROBS
from pipelines.paper.config import PeerConfig
from pipelines.paper.peers import Behind, Fitted, fit
from pipelines.tracking import StageRun
from pipelines.training import metrics_log
from pipelines.training.preprocessing import CHAIN


def peer(
    config: PeerConfig, data: Path, preprocessed: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes ``evaluation.json``, the rows' log-densities and the curve of validations.

    ``evaluation.json`` is empty where the data are too many or too wide for the peer.

    Raises:
        NonFinite: If a loss or likelihood was not finite.
    """
    torch.set_num_threads(config.threads)
    run.log_params({"peer": config.model_dump()})
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "training")
    behind = Behind(dataset, Preprocessing.load(preprocessed / CHAIN))
    fitted = fit(config, behind)
    metrics = {} if fitted is None else _measured(behind, fitted, output)
    run.log_metrics(metrics)
    evaluation = metrics if fitted is None else {"method": fitted.method, **metrics}
    (output / "evaluation.json").write_text(json.dumps(evaluation, indent=1) + "\n")


def _measured(data: Behind, fitted: Fitted, output: Path) -> dict[str, float]:
    """Returns the likelihoods, as ``evaluate`` names them; writes those of rows, and the curve."""
    found = {split: data.log_probs(split, fitted.values) for split in ("test", "validation")}
    np.savez(output / LOG_PROBS, **{split: values.numpy() for split, values in found.items()})
    common = {"kind": "validate", "share": 1.0, "time": time.time(), "note": ""}
    rows = [
        {**common, "step": point.step,
         "metrics": {"val/nll": point.nll, "time/train_s": point.seconds}}
        for point in fitted.curve
    ]  # fmt: skip
    metrics_log.append(output / metrics_log.FILE, rows)
    metrics = {"time/train_s": fitted.curve[-1].seconds, "train/steps": fitted.curve[-1].step}
    for prefix, split in (("test/", "test"), ("best/val_", "validation")):
        score = Likelihood.of(found[split], data.width)
        metrics |= {f"{prefix}{key}": getattr(score, key) for key in ("nll", "nll_se", "bpd")}
    return metrics
