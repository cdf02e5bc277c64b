"""From trained flows to a reference at noisy test points, and class-blind densities beside it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ebflow.alignment.reference import Reference, pooled
from ebflow.checkpoint import load
from ebflow.preprocessing import Preprocessing
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment import references
from pipelines.gradient_alignment.config import MeasureConfig
from pipelines.gradient_alignment.references import FLOW, FLOWS, GAUSSIAN
from pipelines.gradient_alignment.unit_rows import unit_rows
from pipelines.tracking.run import StageRun
from pipelines.training.stage_reports import begin, write_metrics


def reference(
    config: MeasureConfig,
    data: Path,
    trained: Sequence[Path],
    whole: Path | None = None,
    *,
    run: StageRun,
) -> None:
    """Writes flows, the points with their scores, class-blind densities, ``evaluation.json``.

    Arguments:
        config: The points, and the noise that smooths.
        data: The prepared data.
        trained: What the flows' trainings left: of every class in turn, or of all rows.
        whole: What that of all rows left; None: class-blind densities are left out.
    """
    dataset = begin(config, config.threads, data, run, "testing")
    labels = dataset.split("train").labels()
    priors = labels.bincount(minlength=len(trained)) if len(trained) > 1 else torch.ones(1)
    for index, folder in enumerate(trained):
        shutil.copytree(folder / "checkpoint", run.output / FLOWS / str(index))
    flows = [load(folder / "checkpoint").to(config.device) for folder in trained]
    found = Reference(flows, priors)
    test, train = (references.points(config, dataset, split) for split in ("test", "train"))
    scores = found.at(test.noisy)
    references.write_points(run.output, test, scores, found.priors)
    quality = references.quality(test, scores, train, found.at(train.noisy))
    if whole is not None:
        _write_blind(dataset, config.noise, whole, run.output)
        blind = references.open_blind(run.output, config.device)
        quality |= references.blind_quality(blind, test)
    write_metrics(quality, run)


def _write_blind(dataset: Dataset, noise: float, whole: Path, output: Path) -> None:
    """Writes the pooled Gaussian of all rows, and the flow of them."""
    gaussian = pooled(unit_rows(dataset.split("train")), noise)
    spec = {"width": gaussian.size, "normalize": "none"}
    Preprocessing([], spec, base=gaussian).save(output / GAUSSIAN)
    shutil.copytree(whole / "checkpoint", output / FLOW)
