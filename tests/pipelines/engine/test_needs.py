"""Resources that stages reserve, and the threads that they get."""

from types import SimpleNamespace

import pytest
import torch
from mlflow.exceptions import RestException

from pipelines.cluster import environment
from pipelines.cluster.connection import DRIVER
from pipelines.config import ClusterConfig, DensityConfig, PreprocessFit, TrainConfig, Training
from pipelines.density import graph as density
from pipelines.engine import runner, stages
from pipelines.engine.runner import ray_options
from pipelines.engine.stages import Stage, Work, needs_from_config
from pipelines.errors import StageFailed
from pipelines.sample_complexity import graph as sample_complexity
from tuning import graph as search

from .cases import threads

ONE = {"CPU": 1}


NEEDS = {
    "undeclared": (density.report, DensityConfig(), ONE),
    "a cell": (sample_complexity.learn, None, ONE),
    "threads": (density.preprocess, PreprocessFit(threads=3), {"CPU": 3}),
    "a training": (density.train, Training(train=TrainConfig(threads=2)), {"CPU": 2}),
    "workers": (density.train, Training(cluster=ClusterConfig(workers=2)), DRIVER),
    "a worker with a GPU": (density.train, Training(cluster=ClusterConfig(gpu=1)), DRIVER),
    "a search": (search.search, None, {"CPU": 0}),
}


@pytest.mark.parametrize("stage, config, needs", NEEDS.values(), ids=NEEDS)
def test_a_stage_needs_what_it_declares(stage, config, needs, monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: True)
    assert Work(stage, config).needs == needs


def test_a_clusters_trainings_are_launched(monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: False)
    assert Work(density.train, Training()).needs == DRIVER


@pytest.mark.parametrize("alone", [True, False])
def test_the_memory_of_a_trial_is_reserved_where_others_share_a_node(alone, monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: alone)
    trial = Training(cluster=ClusterConfig(memory=2))
    assert needs_from_config(trial) == {"CPU": 1} | ({} if alone else {"memory": 2 * 2**30})


def options(needs):
    return ray_options(Work(Stage("any", needs=needs), None))


@pytest.mark.parametrize("alone", [True, False])
def test_a_machine_that_cannot_grow_is_asked_for_no_more_than_it_has(alone, monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: alone)
    monkeypatch.setattr(runner, "largest_node", lambda: 2.0)
    given = [options(needs)["num_cpus"] for needs in (ONE, {"CPU": 3}, DRIVER)]
    assert given == [1, 2 if alone else 3, 0]
    assert options({"CPU": 1, "GPU": 2})["num_gpus"] == 2


@pytest.mark.parametrize(
    "code, again", [("TEMPORARILY_UNAVAILABLE", True), ("RESOURCE_DOES_NOT_EXIST", False)]
)
def test_ray_repeats_only_requests_to_mlflow_that_may_succeed(code, again, monkeypatch):
    def refused(_):
        raise RestException({"error_code": code, "message": "no"})

    monkeypatch.setattr(stages.store, "require_same_store", refused)
    monkeypatch.setattr(runner, "largest_node", lambda: 2.0)
    work = Work(density.report, None)
    context = SimpleNamespace(tracker=SimpleNamespace(home=None))
    with pytest.raises((StageFailed, RestException), match="no") as raised:
        stages.call(work, context)
    assert isinstance(raised.value, tuple(ray_options(work)["retry_exceptions"])) == again


def test_a_stage_has_the_threads_that_it_declares(engine):
    """Ray reuses a process, and torch keeps the number of threads of the stage before."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = engine().run([threads(None)]).value[0]
    finally:
        torch.set_num_threads(before)
    assert (found.path / "value.txt").read_text() == "1"
