"""A run as a job of a cluster: its command, its environment and its files."""

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ebflow.errors import BadInput
from pipelines.store import bucket
from pipelines.store.files import without_password
from pipelines.tracking.backend import uri as tracking_uri

if TYPE_CHECKING:
    from pipelines.engine.pipeline import Run

CONFIG = "submitted.yaml"
"""File of the resolved configuration."""

SENT = ("EBFLOW_DATA", "EBFLOW_HOME", bucket.VARIABLE, "MLFLOW_TRACKING_URI")
"""Variables that the job gets if they are set here; otherwise those of the nodes hold."""

STORE = '"${EBFLOW_HOME:?found no value on the cluster, expected a folder on every node}"'
"""The store of the nodes, in the syntax of their shell."""


def entrypoint(run: "Run", output: Path | None, settings: Mapping[str, str]) -> str:
    """Returns the shell command of a run on a cluster: the typed options, then those sent.

    Arguments:
        run: The run.
        output: The folder that ``--output`` names; None: one in the store.
        settings: Variables of its environment.

    Raises:
        BadInput: If ``--output`` is a relative path, as the job's folder is deleted.
    """
    if output is not None and not output.is_absolute():
        expected = "an absolute path on storage that all nodes share"
        raise BadInput(option="--output", found=output, expected=expected)
    named = os.environ.get("EBFLOW_HOME")
    place = f"{shlex.quote(named) if named else STORE}/{shlex.quote(str(run.output))}"
    variables = [f"{name}={value}" for name, value in settings.items()]
    dry = ("--dry-run", "--dry_run")
    typed = [word for word in shlex.split(run.command)[1:] if word not in dry]
    sent = ["--config", CONFIG, *(["--recipe", run.recipe] if run.recipe else [])]
    words = [*(["env"] if variables else []), *variables, "python", "-m", "pipelines.cli"]
    command = shlex.join([*words, *typed, *sent])
    return f"{command} --output {place if output is None else shlex.quote(str(output))}"


def environment() -> dict[str, str]:
    """Returns the variables of a job.

    Raises:
        BadInput: If one holds a password, which Ray's dashboard would show, or the tracking
            server is no URL.
    """
    variables = {name: os.environ[name] for name in SENT if os.environ.get(name)}
    if bucket.used():
        bucket.url()
    uri = tracking_uri() if "MLFLOW_TRACKING_URI" in variables else ""
    if without_password(uri) != uri:
        raise BadInput(
            option="MLFLOW_TRACKING_URI",
            found="a password or a query, which Ray's dashboard would show",
            expected="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set on the nodes",
        )
    return variables


def checkout() -> Path:
    """Returns the folder of the code.

    Raises:
        BadInput: If ebflow is installed as a copy, with no checkout beside it.
    """
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        expected = "a checkout, to send its code"
        raise BadInput(file=root, found="an installed ebflow", expected=expected)
    return root


@contextmanager
def packed(config: str) -> Iterator[Path]:
    """Yields a folder for Ray to pack: links to the checkout, and the resolved configuration.

    Ray follows the links, and leaves out files that a ``.gitignore`` names.
    """
    with tempfile.TemporaryDirectory(prefix="ebflow-job-") as name:
        folder = Path(name)
        for entry in checkout().iterdir():
            (folder / entry.name).symlink_to(entry)
        (folder / CONFIG).write_text(config)
        yield folder
