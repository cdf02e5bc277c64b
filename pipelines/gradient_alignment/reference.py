"""Evaluates trained flows at noisy test points: the reference and the class-blind densities."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ebflow.alignment.metrics import dsm, of_label
from ebflow.alignment.reference import Reference, Scores, pooled
from ebflow.checkpoint import load
from ebflow.preprocessing import Preprocessing
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment import points
from pipelines.gradient_alignment.config import MeasureConfig
from pipelines.gradient_alignment.points import Points, own_log_probs
from pipelines.tracking.run import StageRun
from pipelines.training.stage_reports import begin, write_metrics


def reference(
    config: MeasureConfig, data: Path, trained: Sequence[Path], all_rows: Path, *, run: StageRun
) -> None:
    """Writes flows, points with their scores, class-blind densities and ``evaluation.json``.

    Arguments:
        config: The points, and the noise that smooths.
        data: The prepared data.
        trained: The trained flow of each class in turn, or that of all rows alone.
        all_rows: The trained flow of all rows.
    """
    dataset = begin(config, config.threads, data, run, "testing")
    labels = dataset.split("train").labels()
    priors = labels.bincount(minlength=len(trained)) if len(trained) > 1 else torch.ones(1)
    for index, folder in enumerate(trained):
        shutil.copytree(folder / "checkpoint", run.output / points.FLOWS / str(index))
    flows = [load(folder / "checkpoint").to(config.device) for folder in trained]
    densities = Reference(flows, priors)
    test, train = (points.of_split(config, dataset, split) for split in ("test", "train"))
    scores = densities.at(test.noisy)
    points.write_points(run.output, test, scores, densities.priors)
    quality = _quality(test, scores, train, densities.at(train.noisy))
    _write_blind(dataset, config.noise, all_rows, run.output)
    x = test.noisy
    for name, density in points.open_blind(run.output, config.device).items():
        quality[f"blind/{name}"] = float(density.log_prob(x).mean()) / x.shape[1]
    write_metrics(quality, run)


def _write_blind(dataset: Dataset, noise: float, all_rows: Path, output: Path) -> None:
    """Writes the pooled Gaussian of all rows, and the flow of all rows."""
    gaussian = pooled(points.unit_rows(dataset.split("train")), noise)
    spec = {"width": gaussian.size, "normalize": "none"}
    Preprocessing([], spec, base=gaussian).save(output / points.GAUSSIAN)
    shutil.copytree(all_rows / "checkpoint", output / points.FLOW)


def _quality(test: Points, scores: Scores, train: Points, fitted: Scores) -> dict[str, float]:
    """Returns log-densities (nats a dimension), Bayes accuracy and DSM checks of a reference."""
    width = test.clean.shape[1]
    own = scores.marginal if scores.classes is None else of_label(scores.classes, test.labels)
    cosines, residual = dsm(own, test.noise, test.sigma)
    marginal = torch.cosine_similarity(scores.marginal, -test.noise)
    numbers = {
        "reference/log_density": float(own_log_probs(scores, test.labels).mean()) / width,
        "reference/log_density_train": float(own_log_probs(fitted, train.labels).mean()) / width,
        "reference/score_norm": float(own.norm(dim=1).mean()),
        "reference/dsm_cos": float(cosines.mean()),
        "reference/dsm_residual": residual.value,
        "reference/dsm_residual_se": residual.se,
        "reference/marginal_dsm_cos": float(marginal.mean()),
        "reference/points": float(len(own)),
    }
    if scores.posterior is not None:
        correct = scores.posterior.argmax(1) == test.labels
        numbers["reference/accuracy"] = float(correct.double().mean())
    return numbers
