"""How many trials run at a time, and the line for one that never fits."""

import pytest

from ebflow.errors import BadInput
from pipelines.cluster import environment
from pipelines.config import ClusterConfig, DensityConfig, TrainConfig
from tuning.density.config import DensitySearch, DensityTune
from tuning.problems import problem
from tuning.search import concurrency

HERE = {"CPU": 4, "GPU": 1}


def training(threads=1, most=None, **cluster):
    config = DensityConfig(train=TrainConfig(threads=threads), cluster=ClusterConfig(**cluster))
    return problem(DensityTune(search=DensitySearch(max_concurrent=most), base=config))


ROOM = {
    "a thread each": (training(), HERE, 4),
    "as many as are allowed": (training(most=1), HERE, 1),
    "no more than fit": (training(most=9), HERE, 4),
    "two threads": (training(2), HERE, 2),
    "workers": (training(workers=2), HERE, 2),
    "a GPU": (training(gpu=True), HERE, 1),
    "memory, which counts on clusters alone": (training(memory=64), HERE, 4),
    "a cluster that may grow": (training(99, workers=8), None, 8),
    "a cluster, and a bound": (training(most=20), None, 20),
}


@pytest.mark.parametrize("searched, machine, expected", ROOM.values(), ids=ROOM)
def test_trials_at_a_time(searched, machine, expected, monkeypatch):
    monkeypatch.setattr(environment, "embedded", lambda: machine is not None)
    assert concurrency(searched, machine) == expected


NEVER = {
    "threads": (training(5), HERE, "needs 5 CPUs, .* the 4 that"),
    "workers": (training(2, workers=4), HERE, "needs 8 CPUs, .* the 4 that"),
    "GPUs": (training(gpu=True, workers=2), HERE, "needs 2 GPUs, .* the 1 that"),
    "no GPU": (training(gpu=True), {"CPU": 2}, "needs 1 GPUs, .* the 0 that"),
}


@pytest.mark.parametrize("searched, machine, line", NEVER.values(), ids=NEVER)
def test_a_trial_that_never_fits_is_one_line_that_says_what_to_change(searched, machine, line):
    with pytest.raises(BadInput, match=f"{line}.* lower train.threads or cluster.workers"):
        concurrency(searched, machine)


def test_a_driver_leaves_the_cpus_to_its_workers():
    assert training(2).needs == {"CPU": 2}
    assert training(2, workers=2).needs["CPU"] == 0
