"""The paper's experiments: what their cells are, what is printed, and a real run of them all."""

import io
import json

import pytest
from rich.console import Console

from pipelines import comparison, experiments
from pipelines.config import PaperConfig

from .conftest import NO_RAY, Store

CONFIG = PaperConfig(source="digits", scale="smoke", seeds=2)


def by_name(config=CONFIG):
    return {
        (cell.net, cell.settings, cell.config.objective.name, cell.config.seed): cell
        for cell in experiments.cells(config)
    }


def test_a_table_has_every_published_number_and_this_projects_recipes():
    found = by_name()
    assert len(found) == 2 * (5 + 3 + 5 + 3)
    assert found["FC", "paper", "ml", 0].published == 1092.4
    assert found["CNN", "paper", "fd_ssm", 1].published == 1122.1
    assert found["FC", "recipe", "lazy_ml", 0].published is None


def test_the_published_settings_are_the_published_ones():
    cell = by_name()["CNN", "paper", "dsm", 0].config
    assert (cell.train.optimizer, cell.train.lr, cell.train.gamma) == ("rmsprop", 1e-4, 0.95)
    assert cell.train.weight_decay == 1e-5 and cell.objective.sigma == 0.1
    assert cell.preprocess.normalise == "none" and cell.preprocess.scale == 0.75
    assert cell.anchor.weight == 0 and cell.model.sign == -1
    dense = by_name()["FC", "paper", "fd_ssm", 0].config
    assert (dense.model.depth, dense.model.bias, dense.train.clip) == (2, 1.0, 5.0)
    assert dense.objective.epsilon == 1.0 and dense.preprocess.scale == 0.5


def test_recipes_have_an_anchor_where_they_match_scores():
    cells = by_name()
    for objective in ("dsm", "ssm_vr"):
        assert cells["FC", "recipe", objective, 0].config.anchor.weight == 1


def rows(cells):
    return [
        {
            "net": cell.net, "settings": cell.settings, "objective": cell.config.objective.name,
            "seed": cell.config.seed, "published/nll": cell.published, "test/nll": 1234.5,
            "test/nll_se": 7.0, "test/bpd": 2.0, "baseline/gaussian_nll": 1107.5,
            "train/steps": 123456, "train/steps_per_s": 12.3, "data": "mnist9k", "scale": "cpu",
            "machine": "2 × x86_64", "method": "m",
        }
        for cell in cells
    ]  # fmt: skip


def test_the_table_fits_a_terminal():
    console = Console(width=80, file=io.StringIO())
    told = rows(experiments.cells(CONFIG))
    stages = {"train": "32 ran, 0 cached"}
    comparison.show(console, {"rows": told, "stages": stages, "report": "report.html"})
    text = console.file.getvalue()
    assert "…" not in text and "1107.5" in text and "1122.1" in text and "mnist9k" in text
    assert text.count("1234.5") == len(told)


def test_the_page_says_what_it_compares():
    page = comparison.page(CONFIG, rows(experiments.cells(CONFIG)))
    assert page.count("<tr title=") == 32 and "1092.4" in page and "mnist9k" in page


def test_data_that_are_not_there_are_told_in_one_line(home, ebflow, monkeypatch, tmp_path):
    monkeypatch.setenv("EBFLOW_DATA", str(tmp_path / "empty"))
    result = ebflow("run", "paper")
    assert result.code == 2 and len(result.err) == 1 and "mnist" in result.err[0]


def test_a_dry_run_lists_the_stages(home, ebflow):
    result = ebflow("run", "paper", "--source", "digits", "--dry-run")
    assert result.code == 0 and "compare   run" in result.text
    assert not home.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_run_and_the_same_again(tmp_path, image_file):
    store = Store(tmp_path)
    words = ("run", "paper", "--source", image_file, "--scale", "smoke", "--threads", "1")
    printed = store.run(*words)
    assert "train 16 ran, 0 cached" in printed and "compare ran" in printed
    summary = json.loads((tmp_path / "runs" / "paper" / "table" / "summary.json").read_text())
    assert len(summary["rows"]) == 16
    again = store.run(*words, **NO_RAY)
    assert "train 0 ran, 16 cached" in again and "compare cached" in again
