"""Files that are sent to a cluster, and the cluster's own files; no cluster runs."""

import copy
import json
import os
import shlex
import zipfile
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.job_submission import JobInfo, JobStatus

from pipelines.cli import submit
from pipelines.cli.main import COMMANDS
from pipelines.cli.submit import checkout, packed
from pipelines.cluster.environment import SUBMITTED
from pipelines.config import DensityConfig
from pipelines.paper.config import PaperConfig
from tuning.command import parse_tune

SCHEMA = json.loads(Path(__file__).with_name("rayjob.schema.json").read_text())
AWAY = "http://127.0.0.1:9"


@pytest.fixture
def settings():
    return yaml.safe_load((checkout() / "cluster.yaml").read_text())


class Dropping:
    """A cluster's client whose dashboard goes away while the job is followed."""

    def get_address(self):
        return "http://127.0.0.1:8265"

    async def tail_job_logs(self, identity):
        yield "step 1\n"
        raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")


def test_a_job_goes_on_when_its_dashboard_does_not(home, ebflow, monkeypatch):
    monkeypatch.setattr(submit, "_connect", lambda address: Dropping())
    monkeypatch.setattr(submit, "_send", lambda client, run, config, command: "ebflow-digits-1")
    result = ebflow("submit", "density", "--address", "http://127.0.0.1:8265")
    assert result.code == submit.DETACHED and not result.err and "step 1" in result.out
    assert result.out[-1].startswith("the dashboard went away (WebSocket connection closed")
    assert result.out[-1].endswith("; job ebflow-digits-1 still runs")


class Moved(Dropping):
    """A cluster's client whose log ends, with the node that sent it, before the job does."""

    def __init__(self):
        done = JobInfo(JobStatus.SUCCEEDED, "run", driver_exit_code=0)
        self.states = [JobInfo(JobStatus.RUNNING, "run"), done]

    async def tail_job_logs(self, identity):
        yield "step 1\n"

    def get_job_info(self, identity):
        return self.states.pop(0)


def test_a_job_is_followed_to_its_end_when_its_log_ends_earlier(home, ebflow, monkeypatch):
    monkeypatch.setattr(submit, "POLL_S", 0.01)
    monkeypatch.setattr(submit, "_connect", lambda address: Moved())
    monkeypatch.setattr(submit, "_send", lambda client, run, config, command: "ebflow-digits-1")
    result = ebflow("submit", "density", "--address", "http://127.0.0.1:8265")
    assert result.code == 0 and not result.err and result.out[-1] == "step 1"


@pytest.fixture
def afar(home, monkeypatch):
    """The store is the cluster's."""
    monkeypatch.delenv("EBFLOW_HOME")
    return home


def last_line(result):
    assert result.code == 0, result.err
    return result.out[-1]


def test_ray_accepts_the_cluster(settings):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(settings)))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**settings, "head_nodes": 1}))


def test_the_head_gives_no_cpus_and_workers_come_and_go(settings):
    types = dict(settings["available_node_types"])
    assert types.pop(settings["head_node_type"])["resources"]["CPU"] == 0
    assert any("GPU" in kind["resources"] for kind in types.values())
    assert any("GPU" not in kind["resources"] for kind in types.values())
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in types.values())


def test_the_cluster_asks_for_a_token_and_has_no_public_address(settings):
    assert settings["provider"]["use_internal_ips"] is True
    assert "--env=RAY_AUTH_MODE=token" in settings["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in settings["file_mounts"]
    text = (checkout() / "cluster.yaml").read_text()
    assert "--dashboard-host=127.0.0.1" in text and "0.0.0.0" not in text


@pytest.fixture
def kuberay():
    """The job for KubeRay."""
    return yaml.safe_load((checkout() / "deploy" / "rayjob.yaml").read_text())


def test_kuberay_knows_every_field_of_the_job(kuberay):
    jsonschema.validate(kuberay, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**kuberay, "spec": {**kuberay["spec"], "entryPoint": ""}}, SCHEMA)


def test_the_job_has_the_settings_of_the_cluster(kuberay, settings):
    spec = kuberay["spec"]
    assert spec["backoffLimit"] == 2
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray") and cluster["authOptions"] == {"mode": "token"}
    idle = cluster["autoscalerOptions"]["idleTimeoutSeconds"]
    assert idle == 60 * settings["idle_timeout_minutes"]
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    types = dict(settings["available_node_types"])
    del types[settings["head_node_type"]]
    assert groups.keys() == types.keys()
    options = settings["docker"]["run_options"]
    for name, group in groups.items():
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == settings["docker"]["image"]
        requests, resources = container["resources"]["requests"], types[name]["resources"]
        assert requests == container["resources"]["limits"]
        limits = (group["minReplicas"], group["maxReplicas"])
        assert limits == (types[name]["min_workers"], types[name]["max_workers"])
        assert requests["cpu"] == str(resources["CPU"])
        assert int(requests["memory"].removesuffix("Gi")) << 30 == resources["memory"]
        assert requests.get("nvidia.com/gpu") == ("1" if name == "gpu" else None)
        tolerated = [t["key"] for t in group["template"]["spec"].get("tolerations", ())]
        assert tolerated == (["nvidia.com/gpu"] if name == "gpu" else [])
        spot = "InstanceMarketOptions" in types[name]["node_config"]
        assert spot == ("nodeSelector" in group["template"]["spec"])
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        given = {f"--env={key}={value}" for key, value in environment.items()}
        assert given == {o for o in options if o[:6] == "--env=" and "AUTH_MODE" not in o}
        (mount,) = container["volumeMounts"]
        assert f"--volume={mount['mountPath']}:{mount['mountPath']}" in options
        output = f"--output {environment['EBFLOW_HOME']}/runs/density/digits"
        assert spec["entrypoint"].endswith(output)


def test_a_dry_run_shows_the_command_and_sends_nothing(afar, ebflow):
    result = ebflow("submit", "density", "--dry-run", "--force", "--name", "a-b")
    line = last_line(result)
    assert "pipelines.cli run density " in line and " --config submitted.yaml " in line
    assert " --force " in line and "--dry-run" not in line
    typed = f"cd {Path.cwd()} && ebflow submit density --force --name a-b"
    assert f"{SUBMITTED}={typed}" in shlex.split(line)
    assert line.endswith('node}"/runs/density/a-b')
    assert DensityConfig.model_validate(yaml.safe_load("\n".join(result.out[1:-1])))


def test_the_store_that_is_set_here_is_that_of_the_job(home, ebflow):
    line = last_line(ebflow("submit", "density", "--dry-run", "--name", "a-b"))
    command = ["-m", "pipelines.cli", "run", "density", "--name", "a-b", "--config"]
    words = shlex.split(line)
    assert words[:2] == ["env", f"EBFLOW_HOME={home}"]
    assert words[words.index("-m") :][: len(command)] == command
    assert words[-1] == f"{home}/runs/density/a-b"


PIPELINES = [name for name in COMMANDS if name.startswith(("run ", "tune "))]


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_can_be_submitted_and_reads_what_is_sent(name, afar, ebflow, tmp_path):
    words = name.removeprefix("run ").split()
    typed = (*words, "--dry-run", "--name", "mine")
    result = ebflow("submit", *typed)
    line = last_line(result)
    assert f"{name} --name mine --config submitted.yaml" in line
    assert line.endswith(f"/runs/{words[0]}/mine")
    path = tmp_path / "submitted.yaml"
    path.write_text("\n".join(result.out[1:-1]))
    again = ebflow("submit", *typed, "--config", path)
    assert last_line(again).replace(f" --config {path}", "") == line
    assert again.out[1:-1] == result.out[1:-1]


def test_a_submitted_search_is_the_one_that_was_asked_for(afar, ebflow, tmp_path):
    """Options of a search beside its base are not in the file."""
    words = ["--train.steps", "60", "--trials", "7", "--random", "3", "--top", "5",
             "--over", "preprocessing", "optimization"]  # fmt: skip
    result = ebflow("submit", "tune", "density", "--dry-run", *words)
    line = last_line(result)
    path = tmp_path / "submitted.yaml"
    path.write_text("\n".join(result.out[1:-1]))
    sent = shlex.split(line.rpartition(" tune density ")[2].replace("submitted.yaml", str(path)))
    assert parse_tune(sent)[1] == parse_tune(words)[1]


@pytest.mark.system
def test_a_pipeline_starts_from_the_file_that_is_sent(home, ebflow, tmp_path):
    path = tmp_path / "submitted.yaml"
    path.write_text(yaml.safe_dump(PaperConfig(source="digits", scale="smoke").model_dump()))
    result = ebflow("run", "paper", "--config", path, "--dry-run")
    assert result.code == 0 and result.out[0] == "table at scale smoke"
    path.write_text("experimnt: toy")
    assert ", experimnt: found 'toy'" in ebflow("run", "paper", "--config", path).err[0]


def test_what_is_set_here_holds_there(home, ebflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    line = last_line(ebflow("submit", "density", "--dry-run"))
    assert f"EBFLOW_HOME={home} MLFLOW_TRACKING_URI=http://mlflow:5000 " in line
    assert line.endswith(f"--output {home}/runs/density/digits")
    line = last_line(ebflow("submit", "density", "--dry-run", "--output", "/shared/it"))
    assert line.endswith("--output /shared/it")


BAD = {
    ("--address", AWAY): "--address: found http://127.0.0.1:9, where no cluster answers",
    ("--address", "HEAD:8265"): "--address: found HEAD:8265, expected http://HEAD:8265",
    ("--address", "http://me:word@HEAD:8265"): (
        "--address: found http://HEAD:8265, with a user, a password or a query"
    ),
    (): "--address: found None",
    ("--output", "here"): "--output: found here, expected an absolute path",
    ("--train.lr", "-1"): "--train.lr: found -1",
}


@pytest.mark.parametrize(("words", "line"), BAD.items())
def test_bad_submissions_are_one_line(words, line, home, ebflow, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ours")
    result = ebflow("submit", "density", *words)
    assert line in result.refusal
    assert not home.exists()


@pytest.mark.parametrize("words", [(), ("densty",), ("tune",), ("--address", AWAY)])
def test_no_such_pipeline(words, ebflow):
    result = ebflow("submit", *words)
    assert "expected one of density, paper" in result.refusal


def test_a_password_is_not_sent(home, ebflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@mlflow:5000")
    result = ebflow("submit", "density", "--dry-run")
    assert "MLFLOW_TRACKING_URI: found a password" in result.refusal
    assert "hunter2" not in result.text + result.err[0]


def test_the_bucket_is_sent_and_its_password_is_not(home, ebflow, monkeypatch):
    monkeypatch.setenv("EBFLOW_STORAGE", "s3://bucket/runs?region=eu-west-1")
    line = last_line(ebflow("submit", "density", "--dry-run"))
    assert "'EBFLOW_STORAGE=s3://bucket/runs?region=eu-west-1' " in line
    monkeypatch.setenv("EBFLOW_STORAGE", "s3://me:hunter2@bucket/runs")
    result = ebflow("submit", "density", "--dry-run")
    assert "EBFLOW_STORAGE: found a user" in result.refusal
    assert "hunter2" not in result.text + result.err[0]


def test_the_package_is_the_checkout_without_what_git_ignores(tmp_path):
    from ray._private.runtime_env.packaging import create_package

    ignored = checkout() / "runs" / "a-test"
    ignored.mkdir(parents=True)
    try:
        (ignored / "large.bin").write_text("large")
        with packed("seed: 1\n") as folder:
            create_package(
                str(folder), tmp_path / "p.zip", include_gitignore=True, excludes=[".git"]
            )
    finally:
        (ignored / "large.bin").unlink()
        os.removedirs(ignored)
    with zipfile.ZipFile(tmp_path / "p.zip") as package:
        names = package.namelist()
        assert package.read("submitted.yaml") == b"seed: 1\n"
    assert {"ebflow/flow.py", "pipelines/cli/submit.py", "pyproject.toml"} <= set(names)
    assert not [name for name in names if "large.bin" in name or "__pycache__" in name]
