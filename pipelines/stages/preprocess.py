"""From prepared data to the fitted chain in front of a flow, and to the Gaussian beside it."""

__all__ = ["preprocess"]

import json
from pathlib import Path

import torch

from ebflow.data.loader import Dataset
from pipelines.config import FrontConfig
from pipelines.front import CHAIN, GAUSSIAN, NUMBERS, baseline, fitted
from pipelines.tracking import StageRun


def preprocess(
    config: FrontConfig, data: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes the chain, and that of the full-covariance Gaussian behind the same logit.

    Arguments:
        config: The chain.
        data: The prepared data.
        output: Where to.
        work: Not used.
        run: The stage's run.

    Raises:
        BadInput: If the data do not let themselves be standardised or whitened.
    """
    torch.set_num_threads(config.threads)
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "training")
    fitted(config, dataset).save(output / CHAIN)
    gaussian, shrinkage = baseline(dataset, config.chain)
    gaussian.save(output / GAUSSIAN)
    numbers = {"baseline/gaussian_shrinkage": shrinkage}
    (output / NUMBERS).write_text(json.dumps(numbers) + "\n")
    run.log_metrics(numbers)
