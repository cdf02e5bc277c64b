"""A KubeRay ``RayJob`` of a run: ``deploy/rayjob.yaml``, its name, configuration and command."""

import getpass
import json
import re
from string import Template
from textwrap import indent
from typing import TYPE_CHECKING

import yaml

from ebflow.errors import BadInput
from pipelines.cluster import job
from pipelines.config import Section
from pipelines.config.files import dump

if TYPE_CHECKING:
    from pipelines.engine.pipeline import Run

FILE = "deploy/rayjob.yaml"
CONFIG = f"/etc/ebflow/{job.CONFIG}"
"""The path of the configuration on the head."""

MOST = 47
"""Characters of a job's name at most: KubeRay adds to it."""


def manifest(run: "Run", config: Section) -> str:
    """Returns the resolved configuration and the job that reads it, as YAML.

    The code of the image runs. KubeRay starts the cluster, and deletes it after the job.

    Arguments:
        run: The run.
        config: The resolved configuration, over which the typed options go.

    Raises:
        BadInput: If the run's name is too long for KubeRay.
    """
    text = (job.checkout() / FILE).read_text()
    settings = job.environment()
    command = job.entrypoint(run, settings, config=CONFIG, home=_home(text))
    return Template(text).substitute(
        name=_name("ebflow", getpass.getuser(), run.name),
        config=indent(dump(config), " " * 4).strip(),
        command=json.dumps(command),
    )


def _home(text: str) -> str:
    """Returns the store of the head's environment."""
    cluster = list(yaml.safe_load_all(text))[1]["spec"]["rayClusterSpec"]
    container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    return next(entry["value"] for entry in container["env"] if entry["name"] == "EBFLOW_HOME")


def _name(*parts: str) -> str:
    """Returns a valid name in Kubernetes, which contains the user's name."""
    name = re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
    if len(name) > MOST:
        raise BadInput(
            option="--name",
            found=f"{parts[-1]}, of which the job's name {name} has {len(name)} characters",
            expected=f"at most the {MOST} that KubeRay takes",
        )
    return name
