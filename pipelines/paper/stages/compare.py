"""From the cells of an experiment to a table, figures and a page: published beside measured."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ebflow.errors import NonFinite
from pipelines.paper import comparison
from pipelines.paper.comparison import CONCLUSION
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.experiments.cell import Folders
from pipelines.reporting.style import draw
from pipelines.tracking import StageRun


def compare(
    config: PaperConfig, found: Sequence[Folders | str], *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes ``rows.json``, ``figures/*.png`` and ``report.html``; diverged cells come last.

    And ``conclusion.json``, if the experiment has claims.

    Arguments:
        config: The experiment.
        found: The folders of the cells' stages, cell by cell; of one that diverged, how it did.
    """
    run.log_params(config.model_dump())
    experiment = EXPERIMENTS[config.experiment]
    pairs = list(zip(experiment.placed(config), found, strict=True))
    cells = [cell for cell, result in pairs if not isinstance(result, str)]
    folders = [result for result in found if not isinstance(result, str)]
    if not cells:
        raise NonFinite(f"every cell diverged, the first: {found[0]}")
    whole = experiment.rows(cells, folders)
    rows = [*whole, *(cell.lost(result) for cell, result in pairs if isinstance(result, str))]
    (output / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
    conclusion = experiment.conclude and experiment.conclude(folders)
    if conclusion:
        (output / CONCLUSION).write_text(json.dumps(asdict(conclusion), indent=1) + "\n")
    images = draw(lambda: experiment.figures(whole, folders), output)
    (output / "report.html").write_text(comparison.page(config, rows, images, conclusion))
    run.log_artifacts(output)
