"""From a trained classifier to its accuracy and alignment on rows that no trial saw."""

import json
from pathlib import Path

from ebflow.errors import NonFinite
from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.gradient_alignment.references import Held
from pipelines.tracking import StageRun
from pipelines.training.stage_reports import begin
from tuning.config import SPLITS


def score(
    config: ClassifierConfig, data: Path, reference: Path, trained: Path, *, run: StageRun
) -> None:
    """Writes ``scores.json``: accuracy, A1 … A3 and DSM residual of selection and test rows.

    Raises:
        NonFinite: If the training diverged.
    """
    dataset = begin(config, config.threads, data, run, "testing")
    fitted = fitting.load(trained, dataset.manifest.shape, dataset.manifest.classes)
    if fitted.diverged:
        raise NonFinite(fitted.diagnosis)
    network = fitted.network.to(config.device)
    found = {
        name: Held(config, dataset, reference, split).measure(network)
        for name, split in SPLITS.items()
    }
    (run.output / "scores.json").write_text(json.dumps(found, indent=1) + "\n")
    run.log_metrics(
        {f"{s}/{name}": v for s, numbers in found.items() for name, v in numbers.items()}
    )
