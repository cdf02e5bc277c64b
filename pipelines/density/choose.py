"""From two trained flows to the better one by validation."""

import json
import shutil
from pathlib import Path

from ebflow.checkpoint import load
from ebflow.evaluation import Likelihood, log_probs
from ebflow.tables.batches import Split
from ebflow.tables.rows import sampled
from ebflow.train import VALIDATED
from pipelines.config import EvaluateConfig
from pipelines.data.dataset import Dataset
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

TRAINING = "training.json"


def choose(
    config: EvaluateConfig, data: Path, first: Path, second: Path, *, run: StageRun
) -> None:
    """Copies the training whose flow has the lower NLL of at most 10,000 validation rows.

    Its ``training.json`` gets a line about the choice.
    """
    split = sampled(Dataset(data).split("validation"), VALIDATED, config.seed)
    trainings = [json.loads((folder / TRAINING).read_text()) for folder in (first, second)]
    nlls = [_nll(folder, split, config) for folder in (first, second)]
    best = nlls.index(min(nlls))
    shutil.copytree((first, second)[best], run.output, dirs_exist_ok=True)
    texts = [
        f"{one['model']['method']} ({nll:.2f})" for one, nll in zip(trainings, nlls, strict=True)
    ]
    line = f"{texts[best]} before {texts[1 - best]}, by the NLL of {len(split)} validation rows"
    write_json(run.output / TRAINING, {**trainings[best], "choice": line})
    run.log_metrics({"choice/first_val_nll": nlls[0], "choice/second_val_nll": nlls[1]})
    run.set_tags({"ebflow.choice": line})


def _nll(folder: Path, split: Split, config: EvaluateConfig) -> float:
    found = log_probs(load(folder / "checkpoint"), split, **config.model_dump())
    return Likelihood.of(found, split.width).nll
