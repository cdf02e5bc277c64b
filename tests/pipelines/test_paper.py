"""The paper's experiments: what their cells are, what is printed, and real runs of them."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from pipelines import comparison
from pipelines.config import ClusterConfig, PaperConfig
from pipelines.experiments import EXPERIMENTS
from pipelines.experiments.cell import Column, summarise

from .conftest import NO_RAY, Store

CONFIG = PaperConfig(source="digits", scale="smoke", seeds=2)
TRAINED = [name for name in EXPERIMENTS if name != "runtime"]
IMAGES = [name for name, experiment in EXPERIMENTS.items() if experiment.source]


def by_name(config=CONFIG):
    cells = EXPERIMENTS[config.experiment].placed(config)
    found = {(*cell.labels.values(), cell.config.seed): cell for cell in cells}
    assert len(found) == len(cells)
    return found


def test_a_table_has_every_published_number_and_this_projects_recipes():
    found = by_name()
    assert len(found) == 2 * (5 + 7 + 5 + 6)
    assert found["FC", "paper", "ml", 0].published["test/nll"] == 1092.4
    assert found["CNN", "paper", "fd_ssm", 1].published["train/steps_per_s"] == 38.76
    assert not found["FC", "recipe", "lazy_ml", 0].published


def test_the_published_settings_are_the_published_ones():
    cell = by_name()["CNN", "paper", "dsm", 0].config
    assert (cell.train.optimizer, cell.train.lr, cell.train.gamma) == ("rmsprop", 1e-4, 0.95)
    assert cell.train.weight_decay == 1e-5 and cell.objective.sigma == 0.1
    assert cell.preprocess.normalise == "none" and cell.preprocess.scale == 0.75
    assert cell.anchor.weight == 0 and cell.model.sign == -1
    dense = by_name()["FC", "paper", "fd_ssm", 0].config
    assert (dense.model.depth, dense.model.bias, dense.train.clip) == (2, 1.0, 5.0 * 784)
    assert dense.objective.epsilon == 1.0 and dense.preprocess.scale == 0.5


def test_the_published_settings_of_colour_images_are_the_published_ones():
    found = by_name(PaperConfig(source="natural-patches", images="colour"))
    dense, cnn = found["FC", "paper", "dsm", 0].config, found["CNN", "paper", "dsm", 0].config
    assert dense.model.residual and (dense.train.gamma, dense.train.milestones) == (0.85, 30)
    assert cnn.model.spectral_norm and (cnn.train.gamma, cnn.train.milestones) == (0.8, 20)
    assert dense.stabilise.low_energy == pytest.approx(0.001 * 3072 / 3)
    assert found["FC", "paper", "ml", 0].config.stabilise.low_energy == 0
    assert found["CNN", "paper", "sml", 0].config.model.spectral_norm is None
    assert found["FC", "paper", "ml", 0].published["test/nll"] == 11912.9


def test_recipes_have_an_anchor_where_they_match_scores():
    cells = by_name()
    for objective in ("dsm", "ssm_vr", "fd_ssm"):
        assert cells["FC", "recipe", objective, 0].config.anchor.weight == 1


def test_an_ablation_changes_nothing_but_what_its_labels_say():
    found = by_name(CONFIG.model_copy(update={"experiment": "ablation"}))
    assert len(found) == 2 * 2 * 3 * 4
    both = found["FC", "dsm", "on", "on", 0]
    assert both.config == by_name()["FC", "paper", "dsm", 0].config
    raw, now = (found["FC", "dsm", *way, 0].config for way in (("on", "off"), ("off", "on")))
    assert not raw.preprocess.match_after and raw.train == both.config.train
    assert now.train.ema_decay == 0 and now.preprocess == both.config.preprocess
    assert found["CNN", "dsm", "off", "off", 0].published["test/nll"] == 3170.0
    assert not found["CNN", "dsm", "off", "on", 0].published


def test_imputation_has_the_published_settings_and_two_recipes():
    found = by_name(PaperConfig(experiment="imputation", scale="full"))
    paper, anchored, lazy = found.values()
    train = paper.config.train
    assert (train.batch_size, train.steps, train.augment) == (10, 250_000, "stl10")
    assert (train.optimizer, train.gamma, train.milestones) == ("rmsprop", 0.85, 30)
    assert paper.config.stabilise.low_energy == pytest.approx(0.001 * 64 * 64)
    assert paper.config.data.source == "stl10" and paper.measure.images == 100
    assert (paper.measure.steps, paper.measure.h, paper.measure.snr) == (500, 0.5, 0.1)
    assert anchored.config.anchor.weight and lazy.config.objective.name == "lazy_ml"
    here = by_name(PaperConfig(experiment="imputation"))["paper dsm", 0].config
    assert here.data.source == "natural-patches" and here.train.augment == "none"


def toy(scale):
    return by_name(PaperConfig(experiment="toy", scale=scale, seeds=2))


@pytest.mark.parametrize("scale", ["cpu", "full"])
def test_every_cell_of_toy_has_the_smoothed_density_as_its_target(scale):
    found = toy(scale)
    assert len(found) == 2 * 3 * 5
    for (density, objective, _), cell in found.items():
        told, measure = cell.config, cell.measure
        assert told.data.source == measure.density == density
        noise = told.objective.sigma if objective == "dsm" else told.train.noise
        assert noise == measure.sigma == 0.375
        assert not told.train.noise or objective != "dsm"
        raw = told.preprocess.normalise == "none" or not told.preprocess.match_after
        assert raw and told.train.threads == 1


def test_toy_at_full_length_has_the_published_settings():
    found = toy("full")
    train = found["swirl", "fd_ssm", 1].config.train
    assert (train.lr, train.clip, train.optimizer, train.dtype) == (1e-4, 2.5, "adam", "float64")
    assert (train.batch_size, train.steps, train.schedule) == (2048, 50_001, "constant")
    board = found["checkerboard", "fd_ssm", 0].config
    assert (board.model.norm, board.model.shift_activation) == ("weight", "elu")
    assert (board.train.batch_size, board.train.steps) == (10_000, 100_001)
    assert found["sine", "sml", 0].config.train.clip is None
    assert found["sine", "sml", 0].config.train.optimizer == "adamw"
    assert found["swirl", "ml", 0].config.train.lr == 5e-3
    assert not any(cell.config.anchor.weight for cell in found.values())


@pytest.mark.parametrize("density", ["sine", "swirl", "checkerboard"])
def test_toys_objectives_share_all_but_their_noise_and_weight(density):
    cells = [cell.config for key, cell in toy("cpu").items() if key[0] == density]
    first = cells[0]
    for told in cells:
        train = told.train.model_copy(update={"noise": first.train.noise})
        assert (train, told.model, told.anchor) == (first.train, first.model, first.anchor)


def test_cells_are_trained_by_the_workers_that_are_asked_for():
    cluster = ClusterConfig(workers=4)
    for name in TRAINED:
        experiment = EXPERIMENTS[name]
        source = "digits" if experiment.source else None
        config = PaperConfig(experiment=name, source=source, cluster=cluster)
        assert all(cell.config.cluster == cluster for cell in experiment.placed(config))


def rows(experiment, cells):
    values = {column.metric: 1234.5 for column in experiment.columns}
    values |= {column.baseline: 1107.5 for column in experiment.columns if column.baseline}
    values |= {"test/bpd": 2.03, "baseline/gaussian_bpd": 2.05}
    return [
        {
            "labels": dict(cell.labels), "seed": cell.config.seed,
            "published": dict(cell.published), **values, "train/steps": 123456,
            "data": "mnist9k", "machine": "2 × x86_64", "method": "m",
        }
        for cell in cells
    ]  # fmt: skip


def shown(config, told):
    console = Console(width=80, file=io.StringIO())
    summary = {
        "rows": told, "stages": {"train": "32 ran, 0 cached"}, "report": "report.html",
        "figures": "figures", "config": config.model_dump(),
    }  # fmt: skip
    comparison.show(console, summary)
    return console.file.getvalue()


@pytest.mark.parametrize("name", TRAINED)
def test_the_table_fits_a_terminal(name):
    source = "digits" if name in IMAGES else None
    config = CONFIG.model_copy(update={"experiment": name, "source": source})
    experiment = EXPERIMENTS[name]
    told = rows(experiment, experiment.cells(config))
    text = shown(config, told)
    assert "…" not in text and "mnist9k" in text and "smoke" in text
    last = experiment.columns[-1]
    assert text.count(f"{1234.5:.{last.digits}f} ± ") >= len(told) / config.seeds


LAWS = {"ml": (1e-6, 3.0), "dsm": (1e-3, 2.0)}
"""Step times c Dᵇ in milliseconds that cross at D = 1000."""


@pytest.fixture
def timed(tmp_path):
    """Cells of the runtime, and folders with timings by the laws."""
    cells = EXPERIMENTS["runtime"].cells(PaperConfig(experiment="runtime"))
    folders = []
    for index, cell in enumerate(cells):
        size = cell.config.channels * cell.config.side**2
        folders.append((tmp_path / str(index),))
        folders[-1][0].mkdir()
        made = [
            {"size": size, "label": label, "ms": c * size**b, "median_ms": c * size**b,
             "gemms": None, "peak_fraction": None, "ml_ratio": None}
            for label, (c, b) in LAWS.items()
        ]  # fmt: skip
        (folders[-1][0] / "timings.json").write_text(json.dumps(made))
    return cells, folders


def test_runtimes_are_told_by_their_exponents_and_where_they_cross(timed):
    experiment = EXPERIMENTS["runtime"]
    told = experiment.rows(*timed)
    assert len(told) == 3 * len(LAWS)
    by_label = {tuple(row["labels"].values()): row for row in told}
    dense = by_label["FC", "grey", "dsm"]
    assert dense["exponent"] == pytest.approx(2.0) and dense["crossover"] == pytest.approx(1000)
    assert by_label["CNN", "colour", "ml"]["time/step_ms"] == pytest.approx(1e-6 * 3072**3)
    assert by_label["CNN", "colour", "ml"]["published"] == {"time/step_ms": 50000}
    text = shown(PaperConfig(experiment="runtime"), told)
    assert "…" not in text and "1000" in text and "28991" in text
    assert set(experiment.figures(told, timed[1])) == {"runtime"}


@pytest.mark.parametrize("seeds", [1, 2])
def test_toys_figures_show_the_truth_and_the_first_seeds_flows(tmp_path, seeds):
    config = PaperConfig(experiment="toy", scale="smoke", seeds=seeds)
    cells = EXPERIMENTS["toy"].cells(config)
    np.savez(tmp_path / "arrays.npz", extent=9.0, truth=np.zeros((4, 4)), model=np.ones((4, 4)))
    told = rows(EXPERIMENTS["toy"], cells)
    found = EXPERIMENTS["toy"].figures(told, [(tmp_path, tmp_path)] * len(cells))
    pictures = [axis.get_images()[0].get_array() for axis in found["densities"].axes]
    assert [float(p[0, 0]) for p in pictures] == [pytest.approx(e) for e in 3 * [1, *5 * [np.e]]]
    heights = [bar.get_height() for axis in found["divergences"].axes for bar in axis.patches]
    assert heights == 2 * 3 * 5 * [1234.5]


def test_the_page_says_what_it_compares():
    experiment = EXPERIMENTS["table"]
    page = comparison.page(CONFIG, rows(experiment, experiment.cells(CONFIG)), {})
    assert page.count("<tr title=") == 1 + 23 and "1092.4" in page and "mnist9k" in page


def test_a_line_is_the_mean_over_seeds_with_students_interval():
    made = [
        {"labels": {"net": "FC"}, "published": {}, "method": "m", "nll": nll, "gaussian": 9.0}
        for nll in (1.0, 2.0, 3.0)
    ]
    first, line = summarise((Column("nll", "NLL", baseline="gaussian"),), made)
    assert first.labels == {"net": "Gaussian"} and first.values["nll"][0] == 9.0
    assert line.seeds == 3 and line.values["nll"][0] == 2.0
    assert line.values["nll"][1] == pytest.approx(4.302653 / math.sqrt(3))


def test_data_that_are_not_there_are_told_in_one_line(home, ebflow, monkeypatch, tmp_path):
    monkeypatch.setenv("EBFLOW_DATA", str(tmp_path / "empty"))
    result = ebflow("run", "paper")
    assert result.code == 2 and len(result.err) == 1 and "mnist" in result.err[0]


def test_a_source_for_an_experiment_that_has_its_own_is_refused(home, ebflow):
    result = ebflow("run", "paper", "--experiment", "matrices", "--source", "digits")
    assert result.code == 2 and "matrices" in result.err[0] and not home.exists()


def test_a_dry_run_lists_the_stages(home, ebflow):
    result = ebflow("run", "paper", "--source", "digits", "--dry-run")
    assert result.code == 0 and "compare   run" in result.text
    assert not home.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_real_run_and_the_same_again(tmp_path, image_file, name):
    store = Store(tmp_path)
    source = ("--source", image_file) if name in IMAGES else ()
    words = ("run", "paper", "--experiment", name, *source, "--scale", "smoke", "--threads", "1")
    printed = store.run(*words)
    folder = tmp_path / "runs" / "paper" / name
    summary = json.loads((folder / "summary.json").read_text())
    assert "compare ran" in printed and summary["rows"]
    assert all(path.stat().st_size > 5_000 for path in (folder / "figures").iterdir())
    again = store.run(*words, **NO_RAY)
    assert "train 0 ran" in again and "compare cached" in again
