"""A KubeRay ``RayJob`` of a run, from the settings of ``cluster.yaml``.

Node types become groups of pods, with their least and greatest numbers; resources become requests;
the image, the environment and the shared folder are those of ``docker``. The shared folder, where
there is one, is a claim on a volume (``ReadWriteMany``), and a variable without a value, which
docker takes from its host, is a key of a secret. Fields: KubeRay's API reference, ``ray.io/v1``
(``authOptions`` since v1.5.1).
"""

import argparse
import getpass
import re
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.cli.parsing import Running
from pipelines.cluster import job
from pipelines.cluster.package import checkout
from pipelines.config.files import dump

if TYPE_CHECKING:
    from pipelines.engine.runner import Run

CONFIG_AT = PurePosixPath("/etc/ebflow")
KINDS = {"CPU": "cpu", "GPU": "nvidia.com/gpu", "memory": "memory"}
"""What Kubernetes calls Ray's resources."""

KEPT_S = 600
TRIES = 2
"""How often a job that failed starts anew, on a cluster of its own; it goes on from the store."""

TAINT = {"key": KINDS["GPU"], "operator": "Exists", "effect": "NoSchedule"}
"""What keeps other pods off nodes with GPUs, and not those that ask for one."""

OWN = "ebflow"
"""Name of the claim on the shared folder, and of the secret, which are made beforehand."""

HEAD_CPUS = 2
"""CPUs of the head's pod, of which Ray gives none away."""


def manifest(run: "Run", options: Running) -> str:
    """Returns a ``ConfigMap`` with the resolved configuration and the job that reads it, as YAML.

    The image's code runs. KubeRay makes the token, starts the cluster and, when the job has ended,
    ends it.
    """
    cluster = yaml.safe_load((checkout() / "cluster.yaml").read_text())
    name = _name(cluster["cluster_name"], getpass.getuser(), run.name)
    config = {job.CONFIG: dump(options.config)}
    container = _container(cluster["docker"])
    command = job.entrypoint(
        run,
        options,
        job.environment(),
        config=str(CONFIG_AT / job.CONFIG),
        home=_value(container, "EBFLOW_HOME"),
    )
    spec = {
        "entrypoint": command,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEPT_S,
        "backoffLimit": TRIES,
        "rayClusterSpec": _cluster(cluster, container, name),
    }
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": config},
        {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": spec},
    ]
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _name(*parts: str) -> str:
    """Returns a name that Kubernetes takes, one's own among those who share a namespace."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and what occurs twice twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _cluster(cluster: dict[str, Any], container: dict[str, Any], config: str) -> dict[str, Any]:
    types = dict(cluster["available_node_types"])
    head = types.pop(cluster["head_node_type"])
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"idleTimeoutSeconds": 60 * cluster["idle_timeout_minutes"]},
        "headGroupSpec": _head(head, container, config),
        "workerGroupSpecs": [_group(name, kind, container) for name, kind in types.items()],
    }


def _container(docker: dict[str, Any]) -> dict[str, Any]:
    """Returns what the containers of all pods have alike; KubeRay sets how they authenticate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--volume", action="append", default=[])
    options = parser.parse_known_args(docker["run_options"])[0]
    return {
        "image": docker["image"],
        "env": [_variable(setting) for setting in options.env if "RAY_AUTH_MODE" not in setting],
        "volumeMounts": [{"name": OWN, "mountPath": v.split(":")[1]} for v in options.volume],
    }


def _variable(setting: str) -> dict[str, Any]:
    name, given, value = setting.partition("=")
    if given:
        return {"name": name, "value": value}
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": OWN, "key": name}}}


def _value(container: dict[str, Any], name: str) -> str:
    return next(found["value"] for found in container["env"] if found["name"] == name)


def _head(kind: dict[str, Any], container: dict[str, Any], config: str) -> dict[str, Any]:
    """Returns the group of the head, which gives no CPUs away, with the configuration mounted."""
    mount = {"name": "config", "mountPath": str(CONFIG_AT)}
    mounted = {**container, "volumeMounts": [*container["volumeMounts"], mount]}
    template = _template("ray-head", {**kind["resources"], "CPU": HEAD_CPUS}, mounted)
    template["spec"]["volumes"].append({"name": "config", "configMap": {"name": config}})
    return {"rayStartParams": {"num-cpus": "0"}, "template": template}


def _group(name: str, kind: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    return {
        "groupName": name,
        "replicas": kind["min_workers"],
        "minReplicas": kind["min_workers"],
        "maxReplicas": kind["max_workers"],
        "rayStartParams": {},
        "template": _template("ray-worker", kind["resources"], container),
    }


def _template(name: str, resources: dict[str, int], container: dict[str, Any]) -> dict[str, Any]:
    amounts = {KINDS[kind]: str(amount) for kind, amount in resources.items()}
    filled = {"name": name, **container, "resources": {"requests": amounts, "limits": amounts}}
    claim = {"name": OWN, "persistentVolumeClaim": {"claimName": OWN}}
    shared = any(mount["name"] == OWN for mount in container["volumeMounts"])
    spec = {"containers": [filled], "volumes": [claim] if shared else []}
    return {"spec": {**spec, "tolerations": [TAINT]} if "GPU" in resources else spec}
