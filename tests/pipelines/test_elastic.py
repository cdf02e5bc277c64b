"""A training whose workers come and go with the nodes of a cluster."""

import re

import pytest

from pipelines import metrics_log

from .conftest import OnCluster, Store
from .faults.harness import artefact, checkpoints, failures, wait
from .nodes import ROOT, Cluster
from .test_growing import PATIENCE_S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

WORDS = ("--train.steps", "6000", "--train.batch-size", "512", "--train.clip", "1")

ELASTIC = ("--workers", "1:4", "--cluster.max-failures", "0")  # a lost node is no failure


def test_one_worker_then_two_then_one_train_as_one_does(tmp_path):
    with Cluster(PYTHONPATH=str(ROOT)) as cluster, cluster.nodes(1):
        store = OnCluster(tmp_path, cluster)
        process = store.start("run", "density", *WORDS, *ELASTIC)
        ended = lambda: process.poll() is not None  # noqa: E731
        wait("a checkpoint", lambda: ended() or any(map(checkpoints, works(store))), PATIENCE_S)
        with cluster.nodes(1):
            wait("two workers", lambda: ended() or grown(store), PATIENCE_S)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, ""), out + err
    assert re.search(r"train: grew to 2 workers at step \d+\n", out)
    assert re.search(r"train: shrank to 1 worker at step \d+\n", out)
    assert len(failures(store)) == 1
    workers = store.summary()["workers"]
    assert re.fullmatch(r"1, 2 from step \d+, 1 from step \d+", workers)
    (tag,) = (store.home / "mlruns").glob("*/*/tags/ebflow.workers")
    assert tag.read_text() == workers
    alone = Store(tmp_path / "alone", PATIENCE_S)
    alone.root.mkdir()
    alone.run("run", "density", *WORDS, "--cluster.shards", "4")
    for name in ("checkpoint", "last"):
        one, other = (artefact(s) / name / "model.safetensors" for s in (alone, store))
        assert one.read_bytes() == other.read_bytes()


def works(store):
    """Returns the folders of unfinished trainings."""
    return [*(store.home / "work" / "train").glob("*")]


def grown(store):
    """Returns True if two workers have saved a checkpoint."""
    rows = [row for work in works(store) for row in metrics_log.read(work / metrics_log.FILE)]
    steps = [row["step"] for row in rows if row["note"].startswith("grew to 2 workers")]
    saved = [path.name for work in works(store) for path in checkpoints(work)]
    return steps and any(int(name.removeprefix("step-")) > steps[-1] for name in saved)
