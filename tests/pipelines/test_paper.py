"""The paper's experiments: what their cells are, what is printed, and real runs of them."""

import io
import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ebflow.errors import BadInput
from pipelines.config import ClusterConfig, Section
from pipelines.engine.graphs import plan
from pipelines.engine.stages import Source, Stage
from pipelines.paper.cell import Cell, Column, Finished, Measure
from pipelines.paper.compare import EXPERIMENTS, headline, summarize, text
from pipelines.paper.config import PaperConfig
from pipelines.paper.graph import STAGES, compare, stages
from pipelines.reporting.result import grid
from pipelines.reporting.terminal import terminal

from .conftest import NO_RAY, Store

CONFIG = PaperConfig(source="digits", scale="smoke", seeds=2)
ALONE = ("detection", "missing", "runtime", "formulas")
TRAINED = [name for name in EXPERIMENTS if name not in ALONE]
IMAGES = {
    name: "natural-patches" if name == "colour-table" else "digits"
    for name, experiment in EXPERIMENTS.items()
    if experiment.source
}
# What an experiment on the user's tables needs to be told
OF_TABLES = {"tables": {"sources": ("sine",)}}


def by_name(config=CONFIG):
    cells = EXPERIMENTS[config.experiment].all_cells(config)
    found = {(*cell.labels.values(), cell.config.seed): cell for cell in cells}
    assert len(found) == len(cells)
    return found


def test_a_table_has_every_published_number_and_this_projects_recipes():
    found = by_name()
    assert len(found) == 2 * (5 + 9 + 5 + 8)
    assert found["FC", "paper", "ml", 0].published == 1092.4
    assert found["FC", "recipe", "lazy_ml", 0].published is None
    colour = by_name(PaperConfig(experiment="colour-table", source="natural-patches"))
    assert colour["FC", "paper", "ml", 0].published == 11912.9


def test_options_choose_the_cells_of_a_table_and_their_steps():
    chosen = {"networks": ("FC",), "settings": ("paper",), "objectives": ("dsm", "ml")}
    found = by_name(CONFIG.changed(**chosen, seeds=1, scale="full", steps=700))
    assert [*found] == [("FC", "paper", "ml", 0), ("FC", "paper", "dsm", 0)]
    assert {cell.config.train.steps for cell in found.values()} == {700}


@pytest.mark.parametrize(
    ("option", "name", "expected"),
    [
        ("networks", "RNN", "FC or CNN"),
        ("settings", "mine", "paper or recipe"),
        ("objectives", "csm", "ml or sml"),
    ],
)
def test_cells_that_do_not_exist_are_refused(option, name, expected):
    with pytest.raises(BadInput, match=f"--{option}") as caught:
        by_name(CONFIG.changed(**{option: (name,)}))
    assert expected in str(caught.value)


# γ, M, weight decay, clip, σ or ε, low energy, spectral norm, divisor of the logit; what the
# paper's code adds to a loss that is divided by D (3072 for colour) is multiplied by it
SETTINGS = {
    ("grey", "FC", "ml"): (0.95, 50, 0.0, None, None, 0.0, False, 0.5),
    ("grey", "FC", "sml"): (0.95, 50, 0.0, None, None, 0.0, False, 0.5),
    ("grey", "FC", "ssm_vr"): (0.95, 50, 0.0, None, None, 0.0, False, 0.5),
    ("grey", "FC", "dsm"): (0.95, 50, 0.0, None, 1.0, 0.0, False, 0.5),
    ("grey", "FC", "fd_ssm"): (0.95, 50, 0.0, 5 * 784, 1.0, 0.0, False, 0.5),
    ("grey", "CNN", "ml"): (0.925, 50, 1e-5, None, None, 0.0, False, 0.75),
    ("grey", "CNN", "sml"): (0.925, 50, 2e-5, None, None, 0.0, False, 0.75),
    ("grey", "CNN", "ssm_vr"): (0.95, 50, 0.0, None, None, 0.0, False, 0.75),
    ("grey", "CNN", "dsm"): (0.95, 50, 784e-5, None, 0.1, 0.0, False, 0.75),
    ("grey", "CNN", "fd_ssm"): (0.95, 50, 0.0, 5 * 784, 0.1, 0.0, False, 0.75),
    ("colour", "FC", "ml"): (0.7, 20, 0.0, None, None, 0.0, False, 0.5),
    ("colour", "FC", "sml"): (0.7, 20, 0.0, None, None, 0.0, False, 0.5),
    ("colour", "FC", "ssm_vr"): (0.85, 30, 0.0, None, None, 1.024, False, 0.5),
    ("colour", "FC", "dsm"): (0.85, 30, 0.0, None, 0.1, 1.024, False, 0.5),
    ("colour", "FC", "fd_ssm"): (0.7, 20, 0.0, None, 0.1, 307.2, False, 0.5),
    ("colour", "CNN", "ml"): (0.8, 20, 0.0, None, None, 0.0, True, 0.75),
    ("colour", "CNN", "sml"): (0.8, 20, 0.0, None, None, 0.0, False, 0.75),
    ("colour", "CNN", "ssm_vr"): (0.9, 20, 0.0, None, None, 1.024, True, 0.75),
    ("colour", "CNN", "dsm"): (0.8, 20, 0.0, None, 0.1, 1.024, True, 0.75),
    ("colour", "CNN", "fd_ssm"): (0.85, 50, 0.0, None, 0.1, 307.2, False, 0.75),
}


@pytest.mark.parametrize("key", SETTINGS, ids=" ".join)
def test_every_published_setting(key):
    images, net, objective = key
    experiment = "table" if images == "grey" else "colour-table"
    config = PaperConfig(experiment=experiment, source="digits", scale="full")
    flow = by_name(config)[net, "paper", objective, 0].config
    noise = getattr(flow.objective, "sigma", getattr(flow.objective, "epsilon", None))
    found = (
        flow.train.gamma, flow.train.milestones + 1, flow.train.weight_decay, flow.train.clip,
        noise, flow.stabilise.low_energy, bool(getattr(flow.model, "spectral_norm", False)),
        flow.preprocess.scale,
    )  # fmt: skip
    assert found == pytest.approx(SETTINGS[key])
    colour = images == "colour"
    assert flow.train.augment == ("cifar10" if colour else "none")
    assert (flow.train.lr, flow.train.optimizer, flow.train.batch_size) == (1e-4, "rmsprop", 100)
    assert net == "CNN" or (flow.model.residual, flow.model.bias) == (colour, 1.0)
    assert (flow.model.sign, flow.anchor.weight, flow.preprocess.normalize) == (-1, 0, "none")
    assert flow.train.epoch == (400 if colour else 500)


def test_recipes_have_an_anchor_where_they_match_scores():
    cells = by_name()
    for objective in ("dsm", "ssm_vr", "fd_ssm"):
        assert cells["FC", "recipe", objective, 0].config.anchor.weight == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_cells_of_an_experiment_of_the_paper_have_titles_of_their_own(name):
    tables = ("wine", "diabetes") if name in ("tables", "detection") else ()
    config = PaperConfig(experiment=name, sources=tables)
    titles = [one.title for one in EXPERIMENTS[name].all_cells(config)]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", TRAINED)
def test_cells_are_trained_by_the_workers_that_are_asked_for_and_a_divergence_is_a_result(name):
    cluster = ClusterConfig(workers=4)
    config = PaperConfig(experiment=name, cluster=cluster, **OF_TABLES.get(name, {}))
    cells = [cell.config for cell in EXPERIMENTS[name].all_cells(config) if not cell.stage]
    assert cells and all(flow.cluster == cluster and not flow.train.retry for flow in cells)


def rows(experiment, cells):
    values = {column.metric: 1234.5 for column in experiment.columns}
    values |= {"test/bpd": 2.03, "baseline/gaussian_nll": 1107.5}
    return [
        {
            "labels": dict(cell.labels), "seed": cell.seed,
            "published": cell.published, **values, "train/steps": 123456,
            "data": cell.data.source,
        }
        for cell in cells
    ]  # fmt: skip


def shown(config, rows):
    console = terminal(width=80, file=io.StringIO())
    found = headline(config, rows)
    console.print(grid(found.headings, found.rows))
    console.print(found.note)
    return console.file.getvalue()


@pytest.mark.parametrize("name", TRAINED)
def test_the_table_fits_a_terminal(name):
    update = {"experiment": name, "source": IMAGES.get(name), **OF_TABLES.get(name, {})}
    config = CONFIG.model_copy(update=update)
    experiment = EXPERIMENTS[name]
    lines = rows(experiment, experiment.all_cells(config))
    text = shown(config, lines)
    assert "…" not in text and lines[-1]["data"] in text and "smoke" in text
    last = experiment.columns[-1]
    assert text.count(f"{1234.5:.{last.digits}f} ± ") >= len(lines) / config.seeds


def test_columns_without_a_number_are_left_out():
    config = PaperConfig(experiment="tables", **OF_TABLES["tables"])
    lines = rows(EXPERIMENTS["tables"], EXPERIMENTS["tables"].all_cells(config)[:1])
    known = [*headline(config, lines).headings]
    lines = [{name: value for name, value in row.items() if name != "lead"} for row in lines]
    assert [*headline(config, lines).headings] == [name for name in known if name != "lead"]


def test_the_table_has_published_numbers():
    experiment = EXPERIMENTS["table"]
    numbers = headline(CONFIG, rows(experiment, experiment.all_cells(CONFIG)))
    (line,) = [line for line in numbers.rows if line[:3] == ["FC", "paper", "ml"]]
    assert numbers.headings[-1] == "paper" and line[-1] == "1092.4"


def test_a_line_is_the_mean_over_seeds_with_students_interval():
    common = {"labels": {"network": "FC"}, "published": None, "data": "d"}
    (line,) = summarize([{**common, "test/nll": nll} for nll in (1.0, 2.0, 3.0)])
    found = text(line, Column("test/nll", "NLL", 3))
    assert len(line) == 3 and found == f"2.000 ± {4.302653 / math.sqrt(3):.3f}"


class Nothing(Section):
    """The configuration of a stage."""


def test_a_cell_names_the_stages_that_measure_it(monkeypatch):
    """A flow by its likelihood and another stage, or by that alone; or a stage without data."""
    monkeypatch.setitem(STAGES, "write", Stage("tests.pipelines.stages.write"))
    flow = EXPERIMENTS["table"].all_cells(CONFIG)[0].config
    labels, measure = {"network": "FC"}, Measure("write", Nothing())
    sources = {flow.data.source: Source(flow.data.source, "0")}
    both = Cell.of_flow(labels, flow, measure=measure)
    assert [*stages(both, sources)] == ["trained", "likelihood", "measured"]
    alone = Cell.of_flow(labels, flow, measure=measure, likelihood=False)
    assert [*stages(alone, sources)] == ["trained", "measured"]
    timing = Cell(labels, Nothing(), seed=0, stage="write")
    found = stages(timing, {})
    assert [*found] == ["measured"] and timing.provenance()["data"] == "no data"
    assert [*plan(found).statuses] == ["write"]


def test_a_row_has_the_metrics_of_all_stages(tmp_path):
    for name, file, metrics in (
        ("trained", "training.json", {"metrics": {"train/steps": 3}}),
        ("likelihood", "evaluation.json", {"test/nll": 1.0}),
        ("measured", "evaluation.json", {"study/kl": 0.5}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(metrics))
    folders = {name: tmp_path / name for name in ("trained", "likelihood", "measured")}
    row = Finished(EXPERIMENTS["table"].all_cells(CONFIG)[0], folders).row
    assert (row["train/steps"], row["test/nll"], row["study/kl"]) == (3, 1.0, 0.5)


def test_data_that_are_not_there_are_told_in_one_line(home, ebflow, monkeypatch, tmp_path):
    monkeypatch.setenv("EBFLOW_DATA", str(tmp_path / "empty"))
    result = ebflow("run", "paper")
    assert "mnist" in result.refusal


REFUSED = {
    "--source": ("--experiment", "tables", "--sources", "wine", "--source", "digits"),
    "--cluster": ("--experiment", "detection", "--sources", "wine", "--workers", "2"),
    "--train.batch-size": ("--source", "digits", "--workers", "3"),
    "--seconds": ("--experiment", "detection", "--sources", "wine", "--seconds", "3"),
}


@pytest.mark.parametrize("option", REFUSED)
def test_an_option_that_an_experiment_cannot_use_is_refused(home, ebflow, option):
    result = ebflow("run", "paper", *REFUSED[option])
    assert not home.exists()
    assert result.refusal.startswith(f"ebflow: {option}: ")


def test_a_cell_that_diverged_is_told():
    experiment = EXPERIMENTS["table"]
    cells = experiment.all_cells(CONFIG)
    bad = {**cells[0].provenance(), "diverged": "step 3: found a loss of nan (ml)"}
    text = shown(CONFIG, [*rows(experiment, cells[1:]), bad])
    line = next(line for line in text.splitlines() if "diverged" in line)
    assert line.split()[:3] == ["FC", "paper", "ml"]


def test_the_comparison_runs_where_the_users_files_are():
    """The cells of some experiments depend on their data, which other nodes may not have."""
    assert compare.executor == "driver"


def test_options_are_told_as_this_command_has_them(home, ebflow):
    result = ebflow("run", "paper", "--source", "digits", "--rows", "99999")
    assert result.refusal.startswith("ebflow: --rows: found 99999")
    result = ebflow("run", "paper", "--source", "digits", "--rows", "80")
    assert "This is the cell FC paper ml, seed 0" in result.refusal
    words = ("--experiment", "tables", "--rows", "30")
    result = ebflow("run", "paper", *words, "--sources", "wine")
    assert "This is the cell wine recipe, seed 0, whose other settings are" in result.refusal
    words = ("--experiment", "detection", "--sources", "wine", "--test", "3")
    line = "ebflow: --test: experiment detection does not use it. Leave it out"
    assert ebflow("run", "paper", *words).refusal == line


@pytest.mark.system
def test_a_dry_run_lists_the_stages(home, ebflow):
    result = ebflow("run", "paper", "--source", "digits", "--dry-run")
    assert result.code == 0 and "compare    run" in result.text
    assert not home.exists()


@pytest.fixture(scope="session")
def labelled_files(tmp_path_factory):
    """Two tables of normal rows and anomalies."""
    folder, rng = tmp_path_factory.mktemp("anomalies"), np.random.default_rng(0)
    for name in ("few", "more"):
        x = np.r_[rng.normal(size=(90, 3)), rng.normal(size=(10, 3)) * 4]
        columns = dict(zip("abc", x.T, strict=True))
        table = pa.table({**columns, "label": np.arange(100) >= 90}).cast(TYPES)
        pq.write_table(table, folder / f"{name}.parquet")
    return sorted(folder.iterdir())


TYPES = pa.schema([*((name, pa.float64()) for name in "abc"), ("label", pa.int64())])

TABLES = {"tables": ("sine",), "missing": ("wine",)}


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_real_run_and_the_same_again(tmp_path, image_file, labelled_files, name):
    store = Store(tmp_path, patience=1400)
    images = image_file if IMAGES.get(name) == "digits" else IMAGES.get(name)
    source = ("--source", images) if images else ()
    threads = ("--threads", "1") if "threads" in EXPERIMENTS[name].uses else ()
    tables = labelled_files if name == "detection" else TABLES.get(name, ())
    source += ("--sources", *tables) if tables else ()
    words = ("run", "paper", "--experiment", name, *source, "--scale", "smoke", *threads)
    printed = store.run(*words)
    folder = tmp_path / "runs" / "paper" / name
    summary = json.loads((folder / "summary.json").read_text())
    assert "compare ran" in printed and summary["rows"]
    assert all(path.stat().st_size > 5_000 for path in (folder / "figures").iterdir())
    again = store.run(*words, **NO_RAY)
    assert not re.search(r" ran\b", again) and "compare cached" in again


WRONG_DATA = [
    ("--source", "natural-patches"),
    ("--source", "sine"),
    ("--experiment", "colour-table", "--source", "digits"),
    ("--experiment", "missing", "--sources", "digits"),
]


@pytest.mark.parametrize("words", WRONG_DATA, ids=" ".join)
def test_data_that_do_not_suit_an_experiment_are_refused(home, ebflow, words):
    result = ebflow("run", "paper", *words)
    assert not home.exists()
    assert result.refusal.startswith(f"ebflow: {words[-2]}: found ")
    assert f"({words[-1]}), expected " in result.refusal
