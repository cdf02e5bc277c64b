"""Mean ranks over tables, and their table."""

import json

import pytest

from pipelines.paper import ranks
from pipelines.paper.cell import Finished
from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig

from .test_paper import shown

CONFIG = PaperConfig(experiment="missing", scale="smoke", sources=("wine", "diabetes"), seeds=2)


def finished(folder, value):
    """Returns the cells with ``value(labels, seed)`` as their scores; None: the cell diverged."""
    cells = []
    for k, cell in enumerate(EXPERIMENTS["missing"].all_cells(CONFIG)):
        if (score := value(cell.labels, cell.seed)) is not None:
            (folder / str(k)).mkdir()
            names = ("study/crps", "study/coverage", "study/min_mae", "time/cpu_s")
            text = json.dumps(dict.fromkeys(names, score))
            (folder / str(k) / "evaluation.json").write_text(text)
            cells.append(Finished(cell, [folder / str(k)]))
    return cells


def test_ranks_are_of_means_over_seeds_and_the_table_fits_a_terminal(tmp_path):
    """ebflow is best on wine and last on diabetes; "mean" diverged on wine."""

    def value(labels, seed):
        if labels["rival"] == "mean" and labels["table"] == "wine":
            return None
        place = [
            *dict.fromkeys(c.labels["rival"] for c in EXPERIMENTS["missing"].all_cells(CONFIG))
        ]
        worse = 9 if labels["table"] == "diabetes" and labels["rival"] == "ebflow" else 0
        return place.index(labels["rival"]) + worse + (2 * seed - 1) * 0.1

    cells = finished(tmp_path, value)
    rows = EXPERIMENTS["missing"].rows(cells)
    found = {(*row["labels"].values(), row["data"]): row for row in rows}
    assert found["mnar", "ebflow", "wine"]["study/crps"] == pytest.approx(0.0)
    assert [found["mnar", "ebflow", table]["rank"] for table in ("wine", "diabetes")] == [1, 7]
    assert found["mcar20", "mean", "diabetes"]["rank"] == 6
    diverged = found["mcar20", "mean", "wine"]
    assert diverged["rank"] == 7 and "study/crps" not in diverged
    # The coverages are 0, 1, … : 1 is nearest to 0.9, then 0, then 2.
    wine = [found["mnar", rival, "wine"]["rank_coverage"] for rival in ("miceforest", "ebflow")]
    assert wine == [1, 2]
    text = shown(CONFIG, rows)
    assert "…" not in text and "wine, diabetes" in text and "seeds: 2" in text
    assert "4.0 ± " in text  # ebflow's mean rank
    figure, _ = ranks.by_table(rows, "study/crps", "CRPS")
    assert len(figure.axes) == 3
