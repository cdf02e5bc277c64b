"""How many trials run at a time, and the line for one that never fits."""

import pytest

from ebflow.errors import BadInput
from pipelines.config import ClusterConfig, TrainConfig, Training
from tuning.resources import concurrency, per_trial

HERE = {"CPU": 2}
CLUSTER = [{"CPU": 3, "GPU": 1}, {"CPU": 5}]


def training(threads=1, **cluster):
    return Training(train=TrainConfig(threads=threads), cluster=ClusterConfig(**cluster))


ROOM = {
    "a thread each": (training(), [HERE], None, 2),
    "as many as are allowed": (training(), [HERE], 1, 1),
    "no more than fit": (training(), [HERE], 9, 2),
    "two threads": (training(2), [HERE], None, 1),
    "whole trials on each machine": (training(2), CLUSTER, None, 1 + 2),
    "workers": (training(workers=2), [HERE], None, 1),
    "workers on several machines": (training(workers=4), CLUSTER, None, 2),
    "a GPU": (training(gpu=True), CLUSTER, None, 1),
}


@pytest.mark.parametrize("case", ROOM.values(), ids=ROOM)
def test_trials_at_a_time(case):
    config, found, most, expected = case
    assert concurrency(config, found, most) == expected


NEVER = {
    "threads": (training(4), [HERE], "train.threads: found 4, .* needs 4 CPUs, .* the 2 that"),
    "threads of no one machine": (training(6), CLUSTER, "train.threads: found 6, .* the 5 that"),
    "workers": (training(2, workers=4), [HERE], "cluster.workers: found 4, .* needs 8 CPUs"),
    "no GPU": (training(gpu=True), [HERE], "cluster.gpu: found True, .* needs 1 GPUs, .* the 0"),
}


@pytest.mark.parametrize("case", NEVER.values(), ids=NEVER)
def test_a_trial_that_never_fits_is_one_line_that_says_what_to_change(case):
    config, found, line = case
    with pytest.raises(BadInput, match=line) as caught:
        concurrency(config, found, None)
    assert "lower train.threads or cluster.workers" in str(caught.value)


def test_a_driver_leaves_the_cpus_to_its_workers():
    assert per_trial(training(2)) == {"CPU": 2}
    assert per_trial(training(2, workers=2))["CPU"] == 0
