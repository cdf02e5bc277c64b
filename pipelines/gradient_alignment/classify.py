"""Trains a classifier, and diagnoses its training."""

from pathlib import Path

from ebflow.alignment.regularizers import smallest_trace
from ebflow.bijections.base import products
from ebflow.errors import NonFinite
from pipelines.config import ClusterConfig
from pipelines.gradient_alignment import classifiers
from pipelines.gradient_alignment.classifier_training import training_of
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun
from pipelines.training.loop import alone, run_with_checkpoints
from pipelines.training.stage_reports import begin


@products("highest")
def classify(config: ClassifierConfig, data: Path, *, run: StageRun) -> None:
    """Writes the classifier and the outcome of its training; resumes from the last checkpoint.

    A training that diverges keeps its last weights and its diagnosis. One that collapses
    continues and is diagnosed. Products and convolutions have full float32 precision.
    """
    dataset = begin(config, config.threads, data, run, "training")
    training = training_of(config, dataset)
    diagnosis = ""
    place = alone(run.reporter, run.work)
    try:
        run_with_checkpoints(lambda: training, run.work, place, ClusterConfig().patience)
    except NonFinite as error:
        diagnosis = f"{classifiers.DIVERGED}: {error}"
    run.reporter.finish()
    trace = None if diagnosis else training.probe()["probe/trace"]
    diagnosis = diagnosis or _collapse(config, trace, dataset.manifest.width)
    classifiers.save(run.output, config.network, training.network)
    write_json(run.output / classifiers.OUTCOME, {"trace": trace, "diagnosis": diagnosis})
    run.set_tags({"ebflow.verdict": diagnosis or "ended"})


def _collapse(config: ClassifierConfig, trace: float, width: int) -> str:
    """Returns the diagnosis of a mean trace below the floor of smoothed data; empty above it."""
    floor = smallest_trace(width, config.smoothing)
    if trace >= floor:
        return ""
    return (
        f"collapse: mean trace {trace:.3g} below the floor {floor:.3g} of data smoothed by "
        f"{config.smoothing:g}; add data noise, or use a stability above 0 or a lower weight"
    )
