"""From a trained classifier to its alignment, its robustness to perturbation, and its pictures."""

__all__ = ["measure"]

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ebflow.data.manifest import Manifest
from pipelines.gradient_alignment import blind, fitting, references
from pipelines.gradient_alignment.config import MeasureConfig, NetConfig
from pipelines.gradient_alignment.measures import Subject
from pipelines.gradient_alignment.measures import measure as all_of
from pipelines.tracking import StageRun


def measure(
    config: MeasureConfig,
    net: NetConfig,
    data: Path,
    reference: Path,
    densities: Path,
    trained: Sequence[Path],
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes ``numbers.json`` and ``arrays.npz``; of a training that diverged, no number.

    Arguments:
        config: What to measure.
        net: The architecture of the classifiers.
        data: The prepared data.
        reference: The reference.
        densities: The class-blind densities.
        trained: The classifier, the baseline of its seed, and the judge of the GAN-test.
        output: Where to.
        work: Not used.
        run: The stage's run.
    """
    torch.set_num_threads(config.threads)
    run.log_params({"measure": config.model_dump()})
    manifest = Manifest.load(data)
    found = [fitting.load(f, net, manifest.shape, manifest.classes) for f in trained]
    numbers, arrays = {}, {}
    if not found[0].diverged:
        points, scores = references.read_points(reference, config.device)
        networks = (one.network.to(config.device) for one in found)
        whole = references.open_reference(reference, config.device)
        shared = blind.read(densities, config.device)
        subject = Subject(*networks, manifest.shape, points, scores, whole, shared)
        numbers, arrays = all_of(config, subject)
    measured = {"numbers": numbers, **found[0].told}
    (output / "numbers.json").write_text(json.dumps(measured, indent=1) + "\n")
    np.savez(output / "arrays.npz", **arrays)
    run.log_metrics({name.replace(" ", "_"): value for name, value in numbers.items()})
