"""From the cells of an experiment to one table: the published number beside the measured one."""

__all__ = ["compare"]

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import comparison
from pipelines.config import PaperConfig
from pipelines.experiments import Cell, cells
from pipelines.method import method
from pipelines.tracking import StageRun


def compare(
    config: PaperConfig,
    found: Sequence[tuple[Path, Path]],
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes ``rows.json``, one row a cell, and ``report.html``.

    Arguments:
        config: The experiment.
        found: The folders of training and evaluation, cell by cell.
        output: Where to.
        work: Not used.
        run: The stage's run.
    """
    run.log_params(config.model_dump())
    pairs = zip(cells(config), found, strict=True)
    rows = [_row(config, cell, *folders) for cell, folders in pairs]
    (output / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
    (output / "report.html").write_text(comparison.page(config, rows))
    run.log_artifacts(output)


def _row(config: PaperConfig, cell: Cell, trained: Path, scored: Path) -> dict[str, Any]:
    training = json.loads((trained / "training.json").read_text())["metrics"]
    scores = json.loads((scored / "evaluation.json").read_text())
    return {
        "net": cell.net,
        "settings": cell.settings,
        "objective": cell.config.objective.name,
        "seed": cell.config.seed,
        "published/nll": cell.published,
        **{key: scores[key] for key in ("test/nll", "test/nll_se", "test/bpd")},
        "baseline/gaussian_nll": scores["baseline/gaussian_nll"],
        "train/steps": training["train/steps"],
        "train/steps_per_s": training["train/steps_per_s"],
        "data": Path(cell.config.data.source).stem,
        "scale": config.scale,
        "machine": f"{os.cpu_count()} × {platform.machine()}",
        "method": method(cell.config),
    }
