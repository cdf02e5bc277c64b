"""A run as a job elsewhere: its command there, and the files that the command reads."""

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from ebflow.errors import BadInput
from pipelines.cli.parsing import Running
from pipelines.config import Section
from pipelines.store import storage
from pipelines.store.urls import without_password

if TYPE_CHECKING:
    from pipelines.engine.runner import Run

CONFIG = "submitted.yaml"
"""File of the resolved configuration."""

RESOLVED = ("config", "config_file", "dry_run", "output")
"""Options that are in that file, or that the command there has in another form."""

SENT = ("EBFLOW_DATA", "EBFLOW_HOME", storage.VARIABLE, "MLFLOW_TRACKING_URI")
"""What is set of these here holds there; else what the nodes have set."""

STORE = '"${EBFLOW_HOME:?found no value on the cluster, expected a folder on every node}"'
"""The store of the nodes, as a word of their shell."""


def entrypoint(
    run: "Run",
    options: Running,
    settings: Mapping[str, str],
    *,
    config: str = CONFIG,
    home: str = STORE,
) -> str:
    """Returns the shell command of a run on a cluster.

    Arguments:
        run: The run.
        options: Its options.
        settings: Variables of its environment.
        config: Where the resolved configuration will be.
        home: The store there, under which the results go too, unless options or environment name
            others.

    Raises:
        BadInput: If the folder for the results is a relative one, which would be lost.
    """
    given = [f"{name}={value}" for name, value in settings.items()]
    pipeline = shlex.split(run.command)[1:3]
    words = ["python", "-m", "pipelines.cli", *pipeline, "--config", config]
    command = [*(["env", *given] if given else []), *words, *_further(options)]
    return f"{shlex.join(command)} --output {_output(run, options, home)}"


def environment() -> dict[str, str]:
    """Returns the variables that a job is given.

    Raises:
        BadInput: If one holds a password, which Ray would show to all who see its dashboard.
    """
    found = {name: os.environ[name] for name in SENT if os.environ.get(name)}
    if storage.used():
        storage.url()
    uri = found.get("MLFLOW_TRACKING_URI", "")
    if without_password(uri) != uri:
        raise BadInput(
            "MLFLOW_TRACKING_URI: found a password or a query, which Ray's dashboard would show, "
            "expected MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set on the nodes"
        )
    return found


def provenance() -> dict[str, str]:
    """Returns the variable that tells a job the commit of the code that is sent with it."""
    from pipelines.tracking.provenance import code

    commit = code()["commit"]
    return {"EBFLOW_COMMIT": commit} if commit else {}


def _output(run: "Run", options: Running, home: str) -> str:
    if options.output is None:
        named = os.environ.get("EBFLOW_HOME")
        return f"{shlex.quote(named) if named else home}/{shlex.quote(str(run.output))}"
    if not options.output.is_absolute():
        raise BadInput(f"--output: found {options.output}, expected an absolute path on storage "
                       "that all nodes share")  # fmt: skip
    return shlex.quote(str(options.output))


def _further(options: Running) -> Iterator[str]:
    """Yields the options that the file of the configuration does not hold, as words."""
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, Section) and field.name not in RESOLVED:
            yield from _set(value)
        elif field.name not in RESOLVED:
            yield from _option(field.name, value)


def _set(section: Section) -> Iterator[str]:
    """Yields the options of a section of its own that are set, as words."""
    for name in type(section).model_fields:
        if name in section.model_fields_set:
            yield from _option(name, getattr(section, name))


def _option(name: str, value: object) -> Iterator[str]:
    if value is None or value is False:
        return
    yield f"--{name.replace('_', '-')}"
    if value is not True:
        yield from map(str, value if isinstance(value, tuple) else (value,))
