"""A node of a cluster that is lost: real raylets on this machine, each with its own address."""

import os
import signal

import psutil
import pytest

from ..conftest import OnCluster
from ..nodes import Cluster
from .harness import ends_well, noted, same, start, training_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture
def cluster():
    """A head without CPUs, and two nodes with one each."""
    with Cluster() as made:
        for last in (2, 3):
            address = f"--address=127.0.0.1:{made.port}"
            made.start(address, f"--node-ip-address=127.0.0.{last}", cpus=1)
        made.wait(3)
        yield made


def lose_the_node_that_trains(cluster):
    """Kills a raylet and all that it has started, at once."""
    for node in cluster.processes[1:]:
        inner = psutil.Process(node.pid).children(recursive=True)
        if any("RayTrainWorker" in " ".join(child.cmdline()) for child in inner):
            for child in inner:
                child.kill()
            os.killpg(node.pid, signal.SIGKILL)
            return
    raise AssertionError("no node trains")


def test_a_lost_node_is_replaced_by_another(whole, cluster, tmp_path):
    store = OnCluster(tmp_path, cluster)
    process = start(store)
    hit = training_of(store)
    lose_the_node_that_trains(cluster)
    out = ends_well(process)
    same(store, whole)
    assert any(line.startswith("train: resumes from step") for line in out), out
    noted(3, store, hit)
