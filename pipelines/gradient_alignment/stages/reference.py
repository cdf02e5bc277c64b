"""From trained flows to the scores of a reference at noisy test points, and how good it is."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ebflow.alignment.reference import Reference
from ebflow.checkpoint import load
from ebflow.data.loader import Dataset
from pipelines.gradient_alignment import references
from pipelines.gradient_alignment.config import MeasureConfig
from pipelines.tracking import StageRun


def reference(
    config: MeasureConfig,
    data: Path,
    trained: Sequence[Path],
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes ``flows/``, the points with their scores, and ``quality.json``.

    Arguments:
        config: The points.
        data: The prepared data.
        trained: What the flows' trainings left: of every class in turn, or of all rows.
    """
    torch.set_num_threads(config.threads)
    dataset = Dataset(data)
    labels = dataset.split("train").labels()
    priors = labels.bincount(minlength=len(trained)) if len(trained) > 1 else torch.ones(1)
    for index, folder in enumerate(trained):
        shutil.copytree(folder / "checkpoint", output / references.FLOWS / str(index))
    flows = [load(folder / "checkpoint").to(config.device) for folder in trained]
    whole = Reference(flows, priors)
    test, train = (
        references.points(dataset, split, config.points, config.noise, config.seed).to(
            config.device
        )
        for split in ("test", "train")
    )
    scores = whole.at(test.noisy)
    references.write_points(output, test, scores, whole.priors)
    quality = references.quality(test, scores, train, whole.at(train.noisy))
    (output / "quality.json").write_text(json.dumps(quality, indent=1) + "\n")
    run.log_metrics(quality)
