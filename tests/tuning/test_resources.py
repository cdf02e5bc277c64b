"""How many trials run at a time, and the line for one that never fits."""

import pytest

from ebflow.errors import BadInput
from pipelines.config import ClusterConfig, TrainConfig, Training
from pipelines.gradient_alignment.config import ClassifierConfig
from tuning.alignment.config import AlignmentSearch
from tuning.density.config import DensitySearch
from tuning.density.problem import DensityProblem
from tuning.resources import concurrency

HERE = {"CPU": 4, "GPU": 1}


def training(threads=1, **cluster):
    return Training(train=TrainConfig(threads=threads), cluster=ClusterConfig(**cluster))


ROOM = {
    "a thread each": (training(), HERE, None, 4),
    "as many as are allowed": (training(), HERE, 1, 1),
    "no more than fit": (training(), HERE, 9, 4),
    "two threads": (training(2), HERE, None, 2),
    "workers": (training(workers=2), HERE, None, 2),
    "a GPU": (training(gpu=True), HERE, None, 1),
    "a cluster that may grow": (training(99, workers=8), None, None, 8),
    "a cluster, and a bound": (training(), None, 20, 20),
}


@pytest.mark.parametrize("case", ROOM.values(), ids=ROOM)
def test_trials_at_a_time(case):
    config, machine, most, expected = case
    assert concurrency(config, DensitySearch(max_concurrent=most), machine) == expected


NEVER = {
    "threads": (training(5), HERE, "needs 5 CPUs, .* the 4 that"),
    "workers": (training(2, workers=4), HERE, "needs 8 CPUs, .* the 4 that"),
    "GPUs": (training(gpu=True, workers=2), HERE, "needs 2 GPUs, .* the 1 that"),
    "no GPU": (training(gpu=True), {"CPU": 2}, "needs 1 GPUs, .* the 0 that"),
}


@pytest.mark.parametrize("case", NEVER.values(), ids=NEVER)
def test_a_trial_that_never_fits_is_one_line_that_says_what_to_change(case):
    config, machine, line = case
    with pytest.raises(BadInput, match=line) as caught:
        concurrency(config, DensitySearch(), machine)
    assert "lower train.threads or cluster.workers" in str(caught.value)


def test_a_classifier_is_made_smaller_by_its_scale():
    with pytest.raises(BadInput, match="needs 5 CPUs, .* a smaller scale"):
        concurrency(ClassifierConfig(threads=5), AlignmentSearch(), HERE)


def test_a_driver_leaves_the_cpus_to_its_workers():
    problem = DensityProblem(DensitySearch())
    assert problem.needs(training(2)) == {"CPU": 2}
    assert problem.needs(training(2, workers=2))["CPU"] == 0
