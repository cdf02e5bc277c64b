"""From all measurements to the table of models, claims, figures and a page."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib

from ebflow.data.manifest import Manifest
from pipelines.gradient_alignment import figures, judged, table, tables, verdicts
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.scales import models, seeds
from pipelines.reporting import claims
from pipelines.reporting.style import STYLE, save
from pipelines.tracking import StageRun

TITLE = "Gradient alignment"


def align(
    config: AlignmentConfig,
    data: Path,
    densities: Sequence[Path],
    measured: Sequence[Path],
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes ``study.json``, ``figures/*.png`` and ``report.html``.

    Arguments:
        config: The study.
        data: The prepared data.
        densities: What the stages of the reference and of the class-blind densities wrote.
        measured: What the measuring stages wrote: all models of the first seed, then of the next.
    """
    run.log_params(config.model_dump())
    seeded = [m.seeded(seed) for seed in seeds(config) for m in models(config)]
    manifest = Manifest.load(data)
    shape = manifest.shape
    lines = table.lines(
        [table.read(m, path, manifest.width) for m, path in zip(seeded, measured, strict=True)]
    )
    quality: dict[str, float] = {}
    for folder in densities:
        quality |= json.loads((folder / "quality.json").read_text())
    found = verdicts.conclude(lines, quality)
    attributions = judged.entries(lines)
    study = {
        "models": [table.entry(line) for line in lines.values()],
        **asdict(found),
        "attributions": attributions,
        "reference": quality,
    }
    (output / "study.json").write_text(json.dumps(study, indent=1) + "\n")
    (output / "figures").mkdir()
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for name, (figure, caption) in figures.figures(lines, shape).items():
            file = output / "figures" / f"{name}.png"
            save(figure, file)
            drawn[name] = claims.Figure(file, caption)
    intro, numbers = tables.intro(config, lines), tables.tables(lines, quality, attributions)
    page = claims.page(TITLE, intro, found, drawn, numbers, config)
    (output / "report.html").write_text(page)
    run.log_artifacts(output)
