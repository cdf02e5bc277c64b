"""A run as a job of a cluster: its command, its environment and its files."""

import os
import shlex
import tempfile
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ebflow.errors import BadInput
from pipelines.store import bucket
from pipelines.store.paths import without_password
from pipelines.tracking.backend import uri as tracking_uri

if TYPE_CHECKING:
    from pipelines.engine.pipeline import Run

CONFIG = "submitted.yaml"
"""File of the resolved configuration."""

SENT = ("EBFLOW_DATA", "EBFLOW_HOME", bucket.VARIABLE, "MLFLOW_TRACKING_URI")
"""Variables that the job gets if they are set here; otherwise those of the nodes hold."""

STORE = '"${EBFLOW_HOME:?found no value on the cluster, expected a folder on every node}"'
"""The store of the nodes, in the syntax of their shell."""


def entrypoint(
    run: "Run", settings: Mapping[str, str], *, config: str = CONFIG, home: str = STORE
) -> str:
    """Returns the shell command of a run on a cluster: the typed options and the same file.

    Arguments:
        run: The run.
        settings: Variables of its environment.
        config: The path of the resolved configuration on the cluster.
        home: The store on the cluster, where the results go unless ``--output`` names a folder.

    Raises:
        BadInput: If ``--output`` is a relative path, as the job's folder is deleted.
    """
    _, *pipeline = shlex.split(run.command)[:3]
    given, rest = _parser().parse_known_args(shlex.split(run.command)[3:])
    recipe = ["--recipe", run.recipe] if run.recipe else []
    words = ["python", "-m", "pipelines.cli", *pipeline, "--config", config, *recipe, *rest]
    set_first = ["env", *(f"{name}={value}" for name, value in settings.items())]
    command = shlex.join([*(set_first if settings else []), *words])
    return f"{command} --output {_output(run, given.output, home)}"


def _parser() -> ArgumentParser:
    """Returns a parser of the options that the job gets in another form."""
    made = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--config", "--output", "--recipe"):
        made.add_argument(name, nargs="?")
    made.add_argument("--dry-run", "--dry_run", action=BooleanOptionalAction)
    return made


def environment() -> dict[str, str]:
    """Returns the variables of a job.

    Raises:
        BadInput: If one holds a password, which Ray's dashboard would show, or the tracking
            server is no URL.
    """
    found = {name: os.environ[name] for name in SENT if os.environ.get(name)}
    if bucket.used():
        bucket.url()
    uri = tracking_uri() if "MLFLOW_TRACKING_URI" in found else ""
    if without_password(uri) != uri:
        raise BadInput(
            option="MLFLOW_TRACKING_URI",
            found="a password or a query, which Ray's dashboard would show",
            expected="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set on the nodes",
        )
    return found


def provenance() -> dict[str, str]:
    """Returns the variable with the commit of the code that is sent with a job."""
    from pipelines.tracking.provenance import code

    commit = code()["commit"]
    return {"EBFLOW_COMMIT": commit} if commit else {}


def _output(run: "Run", given: str | None, home: str) -> str:
    if given is None:
        named = os.environ.get("EBFLOW_HOME")
        return f"{shlex.quote(named) if named else home}/{shlex.quote(str(run.output))}"
    if not Path(given).is_absolute():
        raise BadInput(
            option="--output",
            found=given,
            expected="an absolute path on storage that all nodes share",
        )
    return shlex.quote(given)


def checkout() -> Path:
    """Returns the folder of the code.

    Raises:
        BadInput: If ebflow is installed as a copy, with no checkout beside it.
    """
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        raise BadInput(
            file=root, found="an installed ebflow", expected="a checkout, to send its code"
        )
    return root


@contextmanager
def packed(files: Mapping[str, str]) -> Iterator[Path]:
    """Yields a folder for Ray to pack: links to the checkout, and ``files`` by their names.

    Ray follows the links, and leaves out files that a ``.gitignore`` names.
    """
    with tempfile.TemporaryDirectory(prefix="ebflow-job-") as name:
        folder = Path(name)
        for entry in checkout().iterdir():
            (folder / entry.name).symlink_to(entry)
        for file, text in files.items():
            (folder / file).write_text(text)
        yield folder
