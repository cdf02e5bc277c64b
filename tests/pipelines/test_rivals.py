"""The recipe for tables beside other packages' densities."""

import json
from itertools import count
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import ebflow
from ebflow import preprocessing
from ebflow.evaluation import log_probs
from pipelines.data.dataset import Dataset
from pipelines.density.evaluate import LOG_PROBS
from pipelines.paper import fits
from pipelines.paper.cell import Finished
from pipelines.paper.compare import EXPERIMENTS, summarize, text
from pipelines.paper.config import PaperConfig, RivalConfig
from pipelines.paper.peer import fit, peer
from pipelines.reporting.result import plus_minus
from pipelines.reporting.statistics import student
from pipelines.training.preprocessing import PREPROCESSING
from tests.prepared import prepare

TABLES = EXPERIMENTS["tables"]


def trained(folder, nll, *, peer=False, values=None):
    """Writes what the stages of a cell leave; returns the folders."""
    measured = "measured" if peer else "likelihood"
    made = {name: folder / name for name in ("trained", measured)[peer:]}
    for path in made.values():
        path.mkdir(parents=True)
    metrics = {"train/steps": 100, "train/steps_per_s": 10.0, "time/train_s": 10.0}
    scores = {"test/nll": nll, "test/nll_se": 0.1, "test/bpd": 1.0}
    if peer:
        scores |= metrics
    else:
        scores |= {"baseline/gaussian_nll": 9.0}
        (made["trained"] / "training.json").write_text(json.dumps({"metrics": metrics}))
    (made[measured] / "evaluation.json").write_text(json.dumps(scores))
    values = np.array([-nll - 1, -nll + 1]) if values is None else values
    np.savez(made[measured] / LOG_PROBS, test=values)
    return made


def tables_of(tmp_path, *ours, theirs):
    """Two tables, of which the recipe is behind by noise about ``ours`` − ``theirs``, by seed."""
    sources = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for source in sources:
        pq.write_table(pa.table({"x": np.arange(40.0)}), source)
    config = PaperConfig(experiment="tables", sources=[*map(str, sources)], seeds=len(ours))
    finished = []
    for k, cell in enumerate(TABLES.all_cells(config)):
        peer = bool(cell.stage)
        noise = np.random.default_rng(k).normal(size=400)
        mine = ours[cell.config.seed]
        shift = {"recipe": mine, "maf": theirs}.get(cell.labels["density"], theirs + 2)
        folder = tmp_path / str(k)
        folders = trained(folder, shift, peer=peer, values=noise - shift)
        finished.append(Finished(cell, folders))
    return TABLES.rows(finished)


def test_the_lead_of_a_table_is_over_the_best_peer(tmp_path):
    rows = tables_of(tmp_path, 1.0, theirs=3.0)
    assert [row["labels"] for row in rows] == [{"table": "a"}, {"table": "b"}]
    assert rows[0]["lead"] == pytest.approx(2.0, abs=0.3)
    assert rows[0]["refined_gain"] == pytest.approx(1.0 - 5.0, abs=0.3)


def test_seeds_split_a_table_anew_and_its_interval_allows_for_that(tmp_path):
    rows = tables_of(tmp_path, 1.0, 1.4, theirs=2)
    seeds = [cell.data.seed for cell in TABLES.all_cells(
        PaperConfig(experiment="tables", sources=("wine",), seeds=2))]  # fmt: skip
    assert seeds == 5 * [0] + 5 * [1]
    (lead,) = (column for column in TABLES.columns if column.metric == "lead")
    line = summarize(rows)[0]
    leads, overlap = [row["lead"] for row in line], 4 / 32
    assert text(line, lead) == plus_minus(student(leads, overlap=overlap).interval(), 2)


def test_peers_dequantize_as_the_recipe_does_and_leave_tails():
    recipe, *peers = TABLES.all_cells(PaperConfig(experiment="tables", sources=("wine",)))
    assert recipe.config.preprocess.grids and recipe.config.train.max_seconds == 30
    assert {cell.config.seconds for cell in peers} == {30}
    options = [cell.preprocess.options for cell in peers]
    assert all(c.grids and not c.tails and c.normalize == "standardize" for c in options)


@pytest.fixture(scope="module")
def table(tabular_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    prepare(str(tabular_file), folder, seed=0)
    return Dataset(folder)


def fitted(dataset, **options):
    """Returns the density of a peer, its validation NLL, and all its validations."""
    standardized = preprocessing.fit(dataset.split("train"), normalize="standardize")
    density, looks = fit(RivalConfig(**options), dataset, standardized)
    return density, -float(log_probs(density, dataset.split("validation")).mean()), looks


def test_a_peers_likelihood_is_in_units_of_the_raw_data(table):
    density, _, looks = fitted(table, rival="gmm", seconds=1e-9)
    found = log_probs(density, table.split("test"))
    raw = table.split("train").tensor().double()
    gaussian = torch.distributions.MultivariateNormal(raw.mean(0), raw.T.cov(correction=0))
    expected = gaussian.log_prob(table.split("test").tensor().double())
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0.1)
    assert [look.step for look in looks] == [1]


def test_a_refined_flow_is_measured_on_raw_rows(table, tmp_path):
    """The likelihood is that of a flow of some steps, or a better one."""
    found = {}
    run = SimpleNamespace(open=lambda config, data: table, output=tmp_path,
                          write_metrics=found.update)  # fmt: skip
    preprocessing.fit(table.split("train")).save(tmp_path / PREPROCESSING)
    config = RivalConfig(rival="refined", steps=20)
    peer(config, table.folder, tmp_path, run=run)
    train, validation = (table.split(name).tensor() for name in ("train", "validation"))
    start = ebflow.fit(train, validation=(validation,), steps=20, progress=False)
    nll = -float(log_probs(start, table.split("test")).mean())
    assert found["test/nll"] < nll + 0.1 and 0 < found["train/steps"] <= 20
    assert len(np.load(tmp_path / LOG_PROBS)["test"]) == len(table.split("test"))


def test_mixtures_that_end_after_the_limit_do_not_count(monkeypatch):
    clock = (10.0 * n for n in count())
    monkeypatch.setattr(fits, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    rows = np.random.default_rng(0).normal(size=(50, 2)) + 9 * np.arange(50)[:, None] % 18
    config = RivalConfig(rival="gmm", seconds=15)
    best, looks = fits.mixture(rows, lambda model: -model.score(rows), config)
    assert best.n_components == 1 and [look.step for look in looks] == [1]


def test_no_larger_mixture_is_fitted_after_the_limit(monkeypatch):
    clock, tried = (20.0 * n for n in count()), []
    monkeypatch.setattr(fits, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    create = fits.GaussianMixture

    def counted(k, **options):
        tried.append(k)
        return create(k, **options)

    monkeypatch.setattr(fits, "GaussianMixture", counted)
    rows = np.random.default_rng(0).normal(size=(50, 2))
    fits.mixture(rows, lambda model: 0.0, RivalConfig(rival="gmm", seconds=15))
    assert tried == [1]


def test_a_flow_without_a_time_limit_is_validated_by_steps(table):
    _, _, looks = fitted(table, rival="maf", steps=40)
    assert [look.step for look in looks] == [*range(0, 41, 2)]


def test_a_mixtures_number_is_that_of_the_best_validation(table):
    _, nll, looks = fitted(table, rival="gmm")
    assert len(looks) > 1
    assert nll == min(look.nll for look in looks) < looks[-1].nll


@pytest.mark.system
@pytest.mark.parametrize("name", ["maf", "nsf"])
def test_a_flows_best_weights_are_kept(table, name, monkeypatch):
    found = []
    for _ in range(2):  # a step takes a second of this clock
        monkeypatch.setattr("time.perf_counter", count().__next__)
        found.append(fitted(table, rival=name, steps=60, seconds=400))
    (_, nll, looks), (_, _, again) = found
    assert [look.step for look in looks] == [*range(0, 61, 3)]
    assert nll == min(look.nll for look in looks) < looks[0].nll
    assert [look.nll for look in again] == [look.nll for look in looks]


def test_a_flow_ends_with_its_seconds(table, monkeypatch):
    """A step takes a second of this clock."""
    monkeypatch.setattr("time.perf_counter", count().__next__)
    _, _, looks = fitted(table, rival="maf", seconds=30)
    seconds = [look.seconds for look in looks]
    assert seconds == [look.step for look in looks]
    assert seconds[0] == 0 and seconds[-1] == 30 and len(seconds) == fits.VALIDATIONS + 1
