"""From all measurements to the table of models, claims, figures and a page."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipelines.data.manifest import Manifest
from pipelines.gradient_alignment import attributions, figures, over_seeds, tables, verdicts
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.scales import models, replicates
from pipelines.reporting import studies
from pipelines.reporting.statistics import student
from pipelines.tracking.run import StageRun


def align(
    config: AlignmentConfig,
    data: Sequence[Path],
    densities: Sequence[Path],
    measured: Sequence[Path],
    *,
    run: StageRun,
) -> None:
    """Writes what all studies leave.

    Arguments:
        config: The study.
        data: The prepared data of every seed.
        densities: Their references, and class-blind densities.
        measured: What the measuring stages wrote: all models of the first seed, then of the next.
    """
    seeded = [model for one in replicates(config) for model in models(one)]
    manifests = [Manifest.load(folder) for folder in data]
    shape, width, overlap = manifests[0].shape, manifests[0].width, _overlap(manifests)
    read = [over_seeds.read(m, path, width) for m, path in zip(seeded, measured, strict=True)]
    lines = over_seeds.lines(read, overlap)
    quality = [json.loads((folder / "evaluation.json").read_text()) for folder in densities]
    values = {name: [one[name] for one in quality] for name in quality[0]}
    means = {k: student(found, overlap=overlap).interval() for k, found in values.items()}
    orders = attributions.orders(lines)
    numbers = {
        "models": [over_seeds.entry(line) for line in lines.values()],
        "attributions": attributions.entries(orders),
        "reference": {name: one._asdict() for name, one in means.items()},
    }
    studies.write(
        run, config, "Gradient alignment", tables.intro(config, lines),
        verdicts.conclude(lines, quality), figures.figures(lines, shape),
        tables.tables(lines, means, orders), numbers,
    )  # fmt: skip


def _overlap(manifests: Sequence[Manifest]) -> float:
    """Returns test rows over training rows, where seeds have test rows of their own; else 0."""
    tests = {tuple(shard.sha256 for shard in one.of("test")) for one in manifests}
    counts = manifests[0].counts
    return counts["test"] / counts["train"] if len(tests) > 1 else 0.0
