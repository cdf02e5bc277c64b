"""Jobs on many tables: their cells, their ranks and leads, and their page."""

import json

import pytest

from ebflow.errors import BadInput
from pipelines.paper import fill, jobs
from pipelines.paper.cell import Finished
from pipelines.paper.compare import EXPERIMENTS, SMOKE, compare
from pipelines.paper.config import PaperConfig

from .test_paper import shown
from .untracked import Untracked

CONFIG = PaperConfig(experiment="missing", scale="smoke", sources=("wine", "diabetes"), seeds=2)
JOBS = {"missing": jobs.MISSING, "detection": jobs.DETECTION}


def test_rivals_are_those_of_the_stages():
    assert {*jobs.MISSING.rivals} == {*fill.IMPUTERS}


def test_cells_are_of_every_pattern_table_rival_and_seed():
    cells = EXPERIMENTS["missing"].all_cells(CONFIG)
    assert len(cells) == 3 * 2 * len(jobs.MISSING.rivals) * 2
    assert {(cell.seed, cell.config.seed, cell.data.seed) for cell in cells} == {
        (0, 0, 0), (1, 1, 1),
    }  # fmt: skip
    assert {(cell.data.test, cell.data.validation) for cell in cells} == {(0.2, 0.1)}
    sized = CONFIG.model_copy(update={"test": 9})
    assert {cell.data.test for cell in EXPERIMENTS["missing"].all_cells(sized)} == {9}


@pytest.mark.parametrize("name", ["detection", "tables"])
@pytest.mark.parametrize(("sources", "line"), [
    ((), "--sources: found none"),
    (("x/a.parquet", "y/a.parquet"), "--sources: found .*expected .* with different names"),
])  # fmt: skip
def test_tables_need_names_of_their_own(name, sources, line):
    with pytest.raises(BadInput, match=line):
        EXPERIMENTS[name].all_cells(PaperConfig(experiment=name, sources=sources))


def finished(folder, config, value):
    """Returns the cells with ``value(labels, seed)`` as their scores; None: the cell diverged."""
    cells, job = [], JOBS[config.experiment]
    for k, cell in enumerate(EXPERIMENTS[config.experiment].all_cells(config)):
        if (score := value(cell.labels, cell.seed)) is not None:
            (folder / str(k)).mkdir()
            names = [one.metric for one in job.scores]
            metrics = json.dumps({**dict.fromkeys(names, score), "time/cpu_s": 1.0})
            (folder / str(k) / "evaluation.json").write_text(metrics)
            cells.append(Finished(cell, {"measured": folder / str(k)}))
    return cells


def by_place(labels, seed):
    """ebflow is best on wine and last on diabetes; "mean" diverged on wine."""
    if labels["rival"] == "mean" and labels["table"] == "wine":
        return None
    worse = 9 if labels["table"] == "diabetes" and labels["rival"] == "ebflow" else 0
    return jobs.MISSING.rivals.index(labels["rival"]) + worse + (2 * seed - 1) * 0.1


def test_ranks_and_leads_are_of_means_over_seeds(tmp_path):
    rows = jobs.MISSING.rows(finished(tmp_path, CONFIG, by_place))
    found = {(*row["labels"].values(), row["data"]): row for row in rows}
    assert found["mnar", "ebflow", "wine"]["study/crps"] == pytest.approx(0.0)
    ranks = [found["mnar", "ebflow", name]["study/crps_rank"] for name in ("wine", "diabetes")]
    assert ranks == [1, 7]
    leads = [found["mnar", "mixture", name]["study/crps_lead"] for name in ("wine", "diabetes")]
    assert leads == pytest.approx([4, -5])
    diverged = found["mcar20", "mean", "wine"]
    assert diverged["study/crps_rank"] == 7 and "study/crps" not in diverged
    # The coverages are 0, 1, … : 1 is nearest to 0.9, then 0, then 2.
    rivals = ("miceforest", "ebflow", "MissForest")
    assert [found["mnar", name, "wine"]["study/coverage_rank"] for name in rivals] == [1, 2, 3]
    assert found["mnar", "miceforest", "wine"]["study/coverage_lead"] == pytest.approx(0.1 - 0.9)


def test_the_page_has_means_leads_with_intervals_and_every_table(tmp_path):
    cells = finished(tmp_path, CONFIG, by_place)
    rows = jobs.MISSING.rows(cells)
    text = shown(CONFIG, rows)
    assert "…" not in text and "wine, diabetes" in text and "seeds: 2" in text
    crps, *others = jobs.MISSING.tables(rows)
    assert len(others) == 3 * 3 - 1 and crps.title == "mcar20 CRPS"
    lines = {line[0]: line[1:] for line in crps.rows}
    assert lines["wine"] == ["0.000", *(f"{k}.000" for k in range(1, 6)), ""]
    assert lines["mean rank"][:2] == ["4.0", "1.5"]
    assert lines["ebflow's lead"][:2] == ["", "-3.500 ± 57.178"]  # 12.706 · 4.5
    figure, _ = EXPERIMENTS["missing"].figures(rows, cells)["leads"]
    assert len(figure.axes) == 3


@pytest.mark.parametrize("name", JOBS)
def test_a_page_of_every_job(tmp_path, name):
    config = PaperConfig(experiment=name, scale="smoke", sources=("wine",))
    rivals = JOBS[name].rivals
    cells = finished(tmp_path, config, lambda labels, seed: 0.1 * rivals.index(labels["rival"]))
    rows = JOBS[name].rows(cells)
    assert {row["labels"]["rival"] for row in rows} == {*rivals}
    text = shown(config, rows)
    assert "…" not in text and all(rival in text for rival in rivals)
    assert len(JOBS[name].tables(rows)) == len(JOBS[name].patterns) * len(JOBS[name].scores)


@pytest.mark.parametrize("place", [0, 1], ids=["ebflow", "kNN"])
def test_a_rival_that_diverged_is_a_warning(tmp_path, place):
    config = PaperConfig(experiment="detection", scale="smoke", sources=("wine",))
    cells = finished(tmp_path, config, lambda labels, seed: 0.5)
    outcomes = [cell.folders for cell in cells]
    outcomes[place] = "found a loss of nan"
    output = tmp_path / "output"
    output.mkdir()
    compare(config, outcomes, run=Untracked(output))
    summary = json.loads((output / "summary.json").read_text())
    assert summary["warnings"] == [
        SMOKE,
        f"{cells[place].cell.title} diverged: found a loss of nan",
    ]
    table = summary["headline"]
    assert {len(row) for row in table["rows"]} == {len(table["headings"])}
