"""Clusters of no node, that grow by what Ray sees of the demand: Ray's own autoscaler decides."""

import threading
import time

import pytest

from .conftest import OnCluster
from .nodes import HEAD_ID, Cluster, Growing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PATIENCE_S, GIB = 1800, 2**30
WORDS = ("--train.steps", "300", "--train.validate-every", "100", "--train.log-every", "20")
SEARCH = ("tune", "density", *WORDS, *"--trials 3 --random 3 --top 1 --seeds 1".split())


class Counted:
    """Counts the nodes of a cluster from time to time, while it is entered."""

    def __init__(self, cluster):
        self.cluster, self.most, self.ended = cluster, 0, threading.Event()
        self.thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        self.thread.join()

    def _count(self):
        while not self.ended.wait(1):
            self.most = max(self.most, self.cluster.alive() - 1)


@pytest.fixture(scope="module")
def growing():
    with Growing() as made:
        yield made


@pytest.fixture
def empty(growing):
    """The cluster when all its nodes have been released, and none comes up again."""
    growing.wait(1)
    time.sleep(10)
    growing.wait(1)
    return growing


def test_all_ready_cells_bring_up_all_nodes_and_use_them(empty, tmp_path):
    store = OnCluster(tmp_path, empty)
    with Counted(empty) as nodes:
        store.run("run", "sample-complexity", "--scale", "smoke")
    assert nodes.most == 3
    assert len(empty.used() - {HEAD_ID}) == 3
    empty.wait(1)


def test_a_training_waits_for_its_nodes(empty, tmp_path):
    with Counted(empty) as nodes:
        out = OnCluster(tmp_path, empty).run("run", "density", *WORDS, "--workers", "2")
    assert nodes.most >= 2
    assert "train: done in" in out


def test_workers_wait_for_the_memory_that_they_reserve(tmp_path):
    """Of 2.3 GiB each; a node has 4.4, the head what the trainer's own process takes."""
    cluster = Cluster()
    cluster.head, room = (f"--memory={int(2.05 * GIB)}",), (f"--memory={int(4.4 * GIB)}",)
    with cluster, cluster.nodes(4, words=room):
        store = OnCluster(tmp_path, cluster)
        process = store.start(
            "run", "density", *WORDS, "--workers", "2", "--cluster.memory", "2.3"
        )
        finish_with_another_node(process, lambda: cluster.nodes(4, words=room))


def finish_with_another_node(process, node):
    """Asserts that a training waits for a second node, and ends well once there is one."""
    lines = iter(process.stdout.readline, "")
    assert any(line.startswith("train: started") for line in lines)
    time.sleep(20)
    assert process.poll() is None
    with node():
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert "train: done in" in out


def test_a_search_starts_without_a_node(empty, tmp_path):
    with Counted(empty) as nodes:
        OnCluster(tmp_path, empty).run(*SEARCH)
    assert nodes.most == 3


def test_a_search_can_be_submitted(empty, tmp_path):
    store = OnCluster(tmp_path, empty)
    out = store.run("submit", *SEARCH, "--address", empty.address)
    assert (store.home / "runs" / "tune" / "digits" / "best.yaml").exists(), out


def test_a_node_that_boots_slowly_is_no_failed_start(tmp_path):
    """Ray Train gives up after some starts that took too long."""
    with Cluster() as cluster, cluster.nodes(1):
        store = OnCluster(tmp_path, cluster)
        process = store.start("run", "density", *WORDS, "--workers", "2",
                              RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="0.5")  # fmt: skip
        finish_with_another_node(process, lambda: cluster.nodes(1))
