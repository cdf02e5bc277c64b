"""From all measurements to the table of models, claims, figures and a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ebflow.data.manifest import Manifest
from ebflow.inference import student
from pipelines.gradient_alignment import figures, judged, table, tables, verdicts
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.scales import models, replicates
from pipelines.reporting import studies
from pipelines.reporting.intervals import fields
from pipelines.tracking import StageRun


def align(
    config: AlignmentConfig,
    data: Sequence[Path],
    densities: Sequence[Sequence[Path]],
    measured: Sequence[Path],
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes what all studies leave.

    Arguments:
        config: The study.
        data: The prepared data of every seed.
        densities: What the stages of its reference and of its class-blind densities wrote.
        measured: What the measuring stages wrote: all models of the first seed, then of the next.
    """
    seeded = [model for one in replicates(config) for model in models(one)]
    manifests = [Manifest.load(folder) for folder in data]
    shape, width, overlap = manifests[0].shape, manifests[0].width, _overlap(manifests)
    read = [table.read(m, path, width) for m, path in zip(seeded, measured, strict=True)]
    lines, quality = table.lines(read, overlap), list(map(_quality, densities))
    values = {name: [one[name] for one in quality] for name in quality[0]}
    means = {k: student(found, overlap=overlap).interval() for k, found in values.items()}
    attributions = judged.told(lines)
    numbers = {
        "models": [table.entry(line) for line in lines.values()],
        "attributions": judged.entries(attributions),
        "reference": {name: fields(one) for name, one in means.items()},
    }
    studies.write(
        output, run, config, "Gradient alignment", tables.intro(config, lines),
        verdicts.conclude(lines, quality), lambda: figures.figures(lines, shape),
        tables.tables(lines, means, attributions), numbers,
    )  # fmt: skip


def _quality(folders: Sequence[Path]) -> Mapping[str, float]:
    """Returns the numbers of a seed's reference and class-blind densities."""
    found = [json.loads((folder / "quality.json").read_text()) for folder in folders]
    return {name: value for one in found for name, value in one.items()}


def _overlap(manifests: Sequence[Manifest]) -> float:
    """Returns test rows over training rows, where seeds have test rows of their own; else 0."""
    tests = {tuple(shard.sha256 for shard in one.of("test")) for one in manifests}
    counts = manifests[0].counts
    return counts["test"] / counts["train"] if len(tests) > 1 else 0.0
