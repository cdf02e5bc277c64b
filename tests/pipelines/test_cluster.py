"""Jobs on real clusters of several raylets: what they compute, and what a user is told."""

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from ebflow.checkpoint import read
from pipelines import metrics_log

from .buckets import BUCKET, KEYS
from .conftest import OnCluster, Store, tracking_files
from .faults.harness import LONG, PATIENCE_S, artefact, curve, training_of
from .nodes import ROOT, Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SECRET = secrets.token_hex(16)  # Not in the source, which is sent with the job
WORDS = ("--train.steps", "300", "--train.validate-every", "100", "--workers", "2")


@pytest.fixture(scope="module")
def cluster():
    with Cluster(**KEYS, MLFLOW_ALLOW_FILE_STORE="true") as made:
        yield made


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of two workers on the embedded Ray."""
    store = Store(tmp_path_factory.mktemp("alone"), PATIENCE_S)
    store.run("run", "density", *WORDS)
    report("embedded", store)
    return store


class Remote(OnCluster):
    """A store that a cluster sees, and submissions to it."""

    def environment(self, **more):
        return {
            **self.cluster.environment(EBFLOW_HOME=str(self.home)),
            **tracking_files(self.home),
            "PYTHONPATH": str(ROOT),
            **more,
        }

    def submit(self, *words, pipeline="density", **more):
        """Returns the exit code, and what is printed."""
        address = ("--address", self.cluster.address)
        process = self.start("submit", *pipeline.split(), *address, *words, **more)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def summary(self, name="digits"):
        return Store(self.home).summary(name)


def weights(store):
    return read(artefact(store) / "checkpoint", only=("ema",)).ema


def same(one, other):
    assert curve(one) == curve(other)
    assert one.summary()["test/nll"] == other.summary()["test/nll"]
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def report(where, store):
    """Prints the figures of a run: pytest -s shows them."""
    numbers = store.summary()
    print(
        f"\n{where}: test NLL {numbers['test/nll']!r} nats; workers up in "
        f"{numbers['time/startup_s']:.1f} s, trained {numbers['time/train_s']:.1f} s"
    )


def untold(cluster, store, out):
    """Asserts that the token and a password are in no file of the store, no log, no job."""
    files = [path for root in (store.root, Path(cluster.folder.name)) for path in root.rglob("*")]
    texts = {str(path): path.read_bytes() for path in files if path.is_file()}
    texts |= {"out": out.encode(), "jobs": cluster.get("/api/jobs/", cluster.token)[1].encode()}
    assert len(texts) > 60
    for secret in (cluster.token, SECRET):
        assert [name for name, text in texts.items() if secret.encode() in text] == []


def test_the_dashboard_is_on_loopback(cluster):
    family = [psutil.Process(process.pid) for process in cluster.processes]
    family += [child for process in family for child in process.children(recursive=True)]
    found = [c.laddr for process in family for c in process.net_connections("inet")
             if c.status == psutil.CONN_LISTEN]  # fmt: skip
    assert {address.ip for address in found if address.port == cluster.dashboard} == {"127.0.0.1"}


def test_who_has_no_token_is_refused(cluster):
    for path in ("/api/jobs/", "/api/version", "/nodes?view=summary"):
        assert cluster.get(path)[0] == 401
        assert cluster.get(path, "another")[0] == 403
        assert cluster.get(path, cluster.token)[0] == 200


@pytest.mark.parametrize("nodes", [(2,), (1, 1)], ids=["one node", "two nodes"])
def test_a_cluster_gives_the_numbers_of_this_machine(nodes, cluster, alone, tmp_path):
    store = Remote(tmp_path, cluster)
    with cluster.nodes(*nodes):
        code, out, err = store.submit(*WORDS, MLFLOW_TRACKING_PASSWORD=SECRET)
    assert (code, err) == (0, ""), out + err
    same(store, alone)
    report(f"{len(nodes)} nodes", store)
    untold(cluster, store, out)
    lines = out.splitlines()
    assert sum(line.startswith(("job ", "follow ", "stop ", "resume ")) for line in lines) == 4
    assert "train: started" in lines and any(line.startswith("train: done in") for line in lines)
    assert f"MLflow run {store.summary()['mlflow_run_id']}" in out
    assert read(artefact(store) / "checkpoint", only=()).state["config"]["commit"]


HEALTH = {
    "healthy": ({}, 0, "✓ Ray"),
    "no server": ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, 1, "✗ MLflow"),
    "no token": ({"RAY_AUTH_TOKEN": "another"}, 2, "found no token, or another"),
}


@pytest.mark.parametrize("settings, expected, text", HEALTH.values(), ids=HEALTH)
def test_doctor_checks_a_cluster_and_every_node(cluster, tmp_path, settings, expected, text):
    with cluster.nodes(1, 1):
        process = Remote(tmp_path, cluster).start(
            "doctor", "--address", cluster.address, **settings
        )
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == expected and text in out + err, out + err
    assert out.count(" CPU, 0 GPU)") == (0 if expected == 2 else 3)


def test_a_wrong_token_is_one_line(cluster, tmp_path):
    store = Remote(tmp_path, cluster)
    for token in ("another", ""):
        code, out, err = store.submit(RAY_AUTH_TOKEN=token, HOME=str(tmp_path))
        assert code == 2 and len(err.splitlines()) == 1, err
        assert f"found no token, or another, expected that of {cluster.address}" in err
        assert cluster.token not in out + err


@pytest.mark.system
def test_what_the_job_finds_bad_is_bad_here(cluster, tmp_path):
    store = Remote(tmp_path, cluster)
    code, out, err = store.submit("--data.source", "nowhere.parquet", "--recipe", "tabular")
    assert (code, err) == (2, ""), out + err
    assert "ebflow: nowhere.parquet" in out
    assert not store.home.exists()


@pytest.mark.system
def test_a_job_that_fails_is_one_line(cluster, tmp_path):
    store = Remote(tmp_path, cluster)
    words = ("--train.lr", "1e30", "--train.optimizer", "sgd", "--train.no-retry")
    with cluster.nodes(1):
        code, out, err = store.submit(*words)
    assert code == 1 and len(err.splitlines()) == 1, err
    assert re.search(r"job ebflow-digits-\w+ ended failed", err)
    assert f"resume with: cd {store.root} && {store.named} submit density" in err
    assert "found a loss of" in out


def test_a_detached_job_goes_on_and_is_stopped_and_resumed(cluster, tmp_path):
    store = Remote(tmp_path, cluster)
    address = ("--address", cluster.address)
    whole = Store(tmp_path / "whole", PATIENCE_S)
    whole.root.mkdir()
    whole.run("run", "density", *LONG)
    with cluster.nodes(1):
        process = store.start("submit", "density", *address, *LONG)
        training_of(store)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130 and err == ""
        assert re.search(r"detached; job ebflow-digits-\w+ still runs", out)
        (stop,) = re.findall("(?m)^stop +(.*)$", out)
        assert "RUNNING" in shell(store, stop.replace("job stop", "job status"))
        shell(store, stop)
        code, out, err = store.submit(*LONG)
    assert (code, err) == (0, ""), out + err
    assert curve(store) == curve(whole)
    found = metrics_log.read(artefact(store) / metrics_log.FILE)
    assert any(row["kind"] == metrics_log.RESTARTED for row in found)


def test_a_head_is_killed_and_restarted(tmp_path, monkeypatch):
    """Its jobs are lost; the same command resumes them, once the nodes are started again."""
    whole = Store(tmp_path / "whole", PATIENCE_S)
    whole.root.mkdir()
    whole.run("run", "density", *LONG)
    with Cluster(MLFLOW_ALLOW_FILE_STORE="true") as cluster:
        store = Remote(tmp_path, cluster)
        cluster.start(f"--address=127.0.0.1:{cluster.port}", cpus=1)
        cluster.wait(2)
        process = store.start("submit", "density", "--address", cluster.address, *LONG)
        training_of(store)
        cluster.kill(cluster.processes[0])
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, err) == (130, "") and "the dashboard went away" in out
        for node in list(cluster.processes):
            node.wait(timeout=PATIENCE_S)  # it ends by itself
            cluster.processes.remove(node)
        cluster.start_head()
        with cluster.nodes(1):
            code, out, err = store.submit(*LONG)
    assert (code, err) == (0, ""), out + err
    assert curve(store) == curve(whole)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_files(store.home)["MLFLOW_TRACKING_URI"])
    found = client.search_runs([client.get_experiment_by_name("density").experiment_id])
    ended = [run.info.status for run in found if run.data.tags.get("ebflow.role") == "pipeline"]
    assert sorted(ended) == ["FINISHED", "KILLED"]


def shell(store, command):
    """Runs a printed command as it is; returns what it prints."""
    plain = {k: v for k, v in store.environment().items() if k != "RAY_AUTH_MODE"}
    done = subprocess.run(command, shell=True, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def alone_at(folder):
    """Returns words before a command that make it see an empty folder of its own there."""
    folder.mkdir()
    hidden = f'mount -t tmpfs none {shlex.quote(str(folder))} && exec "$@"'
    unshared = ("unshare", "--mount", "sh", "-c", hidden, "sh")
    if subprocess.run([*unshared, "true"]).returncode:
        pytest.skip("mount namespaces need privileges")
    return unshared


def test_a_node_that_misses_the_store_is_named(cluster, tmp_path):
    """The second node has a mount namespace of its own, with an empty folder over the store's."""
    store = Remote(tmp_path, cluster)
    unshared = alone_at(store.home)
    with cluster.nodes(1), cluster.nodes(1, before=unshared):
        code, out, err = store.submit(*WORDS)
    assert (code, err) == (2, ""), out + err
    assert f"EBFLOW_HOME: found no store at {store.home} on node" in out


@pytest.fixture
def apart(cluster, bucket, server, tmp_path):
    """Returns a function that submits a pipeline to two nodes that share only a bucket.

    Either node has a store of its own, and the driver's is a third.
    """
    folder = tmp_path / "here"
    folder.mkdir()
    store = Remote(folder, cluster)
    unshared = alone_at(store.home)

    def submit(*words, pipeline="density"):
        with cluster.nodes(1, before=unshared), cluster.nodes(1, before=unshared):
            settings = {**bucket.environment, "MLFLOW_TRACKING_URI": server.uri}
            code, out, err = store.submit(*words, pipeline=pipeline, **settings)
        assert (code, err) == (0, ""), out + err
        return store, out

    return submit


def test_nodes_that_share_a_bucket_alone_give_these_numbers(alone, apart, bucket):
    store, out = apart(*WORDS)
    same(store, alone)
    report("two nodes, one bucket", store)
    place = f"{bucket.url.partition('?')[0]}/runs/density/digits"
    assert f"results also at {place}" in out
    assert "summary.json" in bucket.names("runs/density/digits")
    assert store.summary()["artefacts"]["train"].startswith("s3://")
    assert any("validation NLL" in line for line in out.splitlines() if line[:6] == "train:")
    assert not [*(store.home / "work").glob("*/*")]


def test_gradient_alignment_runs_on_nodes_that_share_a_bucket_alone(apart, bucket):
    """Its trainings run on nodes that are not the driver's, and read their own metrics."""
    apart("--scale", "smoke", pipeline="gradient-alignment")
    assert bucket.names("runs/gradient-alignment")


def test_a_search_on_nodes_that_share_a_bucket_alone_has_all_trials_and_curves(
    apart, bucket, server
):
    words = ("--train.steps", "60", "--train.validate-every", "20", "--trials", "3")
    apart(*words, "--random", "3", "--top", "1", "--seeds", "1", pipeline="tune density")
    path = f"{BUCKET}/runs/runs/tune-density/digits/summary.json"
    summary = json.loads(bucket.files.open_input_stream(path).read())
    tried = {trial["number"]: trial for trial in summary["tried"]}
    assert {trial["state"] for trial in tried.values()} <= {"finished", "pruned"}
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("tune-density").experiment_id
    runs = client.search_runs([experiment], "tags.`ebflow.trial` != ''")
    assert sorted(int(run.data.tags["ebflow.trial"]) for run in runs) == [0, 1, 2]
    for run in runs:
        trial = tried[int(run.data.tags["ebflow.trial"])]
        points = client.get_metric_history(run.info.run_id, "val/nll")
        assert max(point.step for point in points) == trial["step"] > 0
        assert min(point.value for point in points) == trial["nll"]
