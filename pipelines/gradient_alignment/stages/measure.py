"""From a trained classifier to its alignment, its robustness to perturbation, and its pictures."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.gradient_alignment import fitting, references
from pipelines.gradient_alignment.attribution_metrics import with_last_of
from pipelines.gradient_alignment.config import MeasureConfig
from pipelines.gradient_alignment.measures import measure as all_of
from pipelines.gradient_alignment.references import Subject
from pipelines.tracking.run import StageRun
from pipelines.training.stage_reports import begin

UNTRAINED = range(2000, 2003)
"""Seeds of parameters that are drawn anew, beyond the study's."""


def measure(
    config: MeasureConfig, data: Path, reference: Path, trained: Sequence[Path], *, run: StageRun
) -> None:
    """Writes ``numbers.json`` and ``arrays.npz``; of a training that diverged, no number.

    Arguments:
        config: What to measure.
        data: The prepared data.
        reference: The reference, and class-blind densities.
        trained: The classifier, the baseline of its seed, and a judge of another architecture.
    """
    manifest = begin(config, config.threads, data, run, "testing").manifest
    found = [fitting.load(f, manifest.shape, manifest.classes) for f in trained]
    measured = {}
    if not found[0].diverged:
        points, scores = references.read_points(reference, config.device)
        networks = [one.network.to(config.device) for one in found]
        whole = references.open_reference(reference, config.device)
        shared = references.open_blind(reference, config.device)
        drawn = (
            fitting.network(found[0].net, manifest.shape, manifest.classes, seed + config.seed)
            for seed in UNTRAINED
        )
        fresh = [one.to(config.device).eval().requires_grad_(False) for one in drawn]
        anew = {"last": [with_last_of(networks[0], one) for one in fresh], "all": fresh}
        subject = Subject(config, *networks, manifest.shape, points, scores, whole, shared, anew)
        measured = all_of(subject)
    arrays = {name: one for name, one in measured.items() if isinstance(one, np.ndarray)}
    numbers = {name: one for name, one in measured.items() if name not in arrays}
    told = {"numbers": numbers, **found[0].outcome}
    (run.output / "numbers.json").write_text(json.dumps(told, indent=1) + "\n")
    np.savez(run.output / "arrays.npz", **arrays)
    run.log_metrics({name.replace(" ", "_"): value for name, value in numbers.items()})
