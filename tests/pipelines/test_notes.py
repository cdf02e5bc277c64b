"""Names, tags and descriptions of runs in MLflow."""

import pytest

from pipelines.config import DensityConfig, Dsm, Likelihood, Ssm
from pipelines.config.recipes import mnist9k_dense
from pipelines.density import graph
from pipelines.engine.pipeline import Run
from pipelines.engine.runner import title
from pipelines.paper.compare import headline
from pipelines.paper.config import PaperConfig
from pipelines.paper.graph import describe

LOSSES = {
    "dsm σ 0.3 + anchor": Dsm(),
    "dsm σ 1 … 0.01 + anchor": Dsm(sigma=1.0, sigma_end=0.01),
    "ssm + anchor": Ssm(),
    "ml": Likelihood(),
}


@pytest.mark.parametrize("title, objective", LOSSES.items(), ids=LOSSES)
def test_a_loss_has_a_short_name(title, objective):
    assert DensityConfig(objective=objective).short_loss == title


def titled(config, recipe):
    run = Run(None, config.name, config, None, "", recipe=recipe)
    return title(run, graph.describe(config).parts)


def test_a_title_says_each_thing_once():
    config = mnist9k_dense().changed(name="mnist9k")
    assert titled(config, "mnist9k") == "mnist9k · lazy_ml · dense-3"
    other = config.model_copy(update={"name": "mine"})
    assert titled(other, "mnist9k") == "mine · mnist9k · lazy_ml · dense-3"
    assert titled(other, "wide") == "mine · mnist9k · lazy_ml · dense-3 · recipe wide"


def test_what_runs_may_be_found_by():
    config = DensityConfig(seed=3, objective=Ssm())
    assert graph.describe(config).tags == {
        "ebflow.data": "digits",
        "ebflow.network": "dense-3",
        "ebflow.objective": "ssm",
        "ebflow.seed": "3",
    }
    glow = config.changed(model={"architecture": "glow"})
    assert graph.describe(glow).tags["ebflow.network"] == "glow"


ROW = {
    "labels": {"net": "FC", "settings": "recipe", "objective": "dsm"}, "seed": 0,
    "published": None, "data": "digits", "test/nll": 96.0, "test/bpd": 2.0,
    "train/steps_per_s": 10.0, "baseline/gaussian_nll": 104.0, "baseline/gaussian_bpd": 2.3,
}  # fmt: skip


def test_an_experiment_is_described_by_its_table():
    config = PaperConfig(source="digits", scale="smoke")
    described = describe(config)
    assert described.parts == ("table", "scale smoke", "digits")
    assert described.tags["ebflow.experiment"] == "table"
    found = headline(config, [ROW])
    assert found.headings[:3] == ["net", "settings", "objective"]
    assert found.rows[0][:3] == ["FC", "recipe", "dsm"] and found.rows[0][-2:] == ["104.0", "96.0"]
