"""``ebflow submit PIPELINE``: a run as a job of a Ray cluster, followed to its end."""

import asyncio
import logging
import os
import secrets
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from ebflow.errors import BadInput
from pipelines.cli.run import Request
from pipelines.cluster.environment import SUBMITTED, again
from pipelines.config.files import dump
from pipelines.errors import StageFailed
from pipelines.reporting.terminal import terminal
from pipelines.store import bucket
from pipelines.store.files import without_password
from pipelines.tracking.backend import shared_uri

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from pipelines.engine.pipeline import Run

DETACHED = 130
POLL_S = 0.5

DRY = ("--dry-run", "--dry_run")

CONFIG = "submitted.yaml"  # File of the resolved configuration

# Variables that the job gets if they are set here; otherwise those of the nodes hold.
SENT = ("EBFLOW_DATA", "EBFLOW_HOME", bucket.VARIABLE, "MLFLOW_TRACKING_URI")

# The store of the nodes, in the syntax of their shell.
STORE = '"${EBFLOW_HOME:?found no value on the cluster, expected a folder on every node}"'

HELP = """usage: ebflow submit PIPELINE --address http://HEAD:8265 [options of ebflow run PIPELINE]
       ebflow submit tune PIPELINE … [options of ebflow tune PIPELINE]

Runs a pipeline, or a search, on a Ray cluster, as a job that outlives this command: sends the
checkout (without what .gitignore names) and the resolved configuration, and shows what the job
prints. Ctrl-C leaves the job alone. The cluster's token is RAY_AUTH_TOKEN, or in
~/.ray/auth_token. EBFLOW_HOME, EBFLOW_STORAGE, EBFLOW_DATA and MLFLOW_TRACKING_URI hold for the
job where they are set here. Data that only the cluster sees need --recipe, which is otherwise
chosen by their columns.

  --address URL   of the cluster's dashboard, http://HOST:PORT
"""


def _address(address: str | None = None) -> str | None:
    """Parses the option of this command alone; the others are the pipeline's."""
    return address


def submit(words: Sequence[str]) -> int:
    """Submits a pipeline and follows it; returns the job's exit code."""
    from pipelines.cli.main import COMMANDS, RUNS, parse_run

    address, rest = tyro.cli(_address, args=words, add_help=False, return_unknown_args=True)
    if {"-h", "--help"} & set(rest):
        print(HELP)
        if rest[0].startswith("-"):
            return 0
    count = 1 + (rest[:1] == ["tune"])
    pipeline = " ".join(rest[:count])
    commands = {name.removeprefix("run "): name for name in COMMANDS if name.startswith(RUNS)}
    if pipeline not in commands:
        expected = f"one of {', '.join(commands)}"
        raise BadInput(option="submit", found=f"pipeline {pipeline!r}", expected=expected)
    request = parse_run(commands[pipeline], rest[count:])
    command = [*commands[pipeline].split(), *rest[count:]]
    # The options of a search stay in its command.
    config = dump(getattr(request.run.config, "base", request.run.config))
    if address is not None:
        _check_address(address)
    typed = again(["submit", *(word for word in words if word not in DRY)])
    return _submit(request, command, config, address, typed)


def _submit(
    request: Request, words: Sequence[str], config: str, address: str | None, typed: str
) -> int:
    """Submits a run and follows the job; returns its exit code."""
    from pipelines.tracking.provenance import code

    commit, console = code()["commit"], terminal()
    settings = {**sent_variables(), **({"EBFLOW_COMMIT": commit} if commit else {})}
    settings[SUBMITTED] = typed
    command = entrypoint(request.run, words, request.options.output, settings)
    console.print(request.line, soft_wrap=True)
    if request.options.dry_run:
        console.print(f"{config}{command}", soft_wrap=True)
        return 0
    client = _connect(address)
    metadata = {"pipeline": request.run.pipeline.name, "name": request.run.name}
    identity = _send(client, metadata, config, command)
    place = f"--address {client.get_address()} {identity}"
    console.print(f"job     {identity}", soft_wrap=True)
    ray = "RAY_AUTH_MODE=token ray job"  # without it, they would send no token
    console.print(f"follow  {ray} logs --follow {place}", soft_wrap=True)
    console.print(f"stop    {ray} stop {place}", soft_wrap=True)
    console.print(f"resume  {typed}", soft_wrap=True)
    return _follow(client, identity, console)


def _connect(address: str | None) -> "JobSubmissionClient":
    """Returns a client of a cluster that answers and knows our token.

    Raises:
        BadInput: If there is no such address, nothing answers, or it asks for another token.
    """
    _check_address(address or "None")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.WARNING)  # Ray reports how the checkout is packed and sent
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        token, found = "RAY_AUTH_TOKEN or ~/.ray/auth_token", "no token, or another"
        raise BadInput(option=token, found=found, expected=f"that of {address}") from None
    except (ConnectionError, RuntimeError) as error:
        found = f"{address}, where no cluster answers ({error})"
        raise BadInput(option="--address", found=found) from None


def _check_address(address: str) -> None:
    """Raises BadInput unless an address is a URL without a password: MLflow would show it."""
    url = without_password(address)
    if not address.startswith(("http://", "https://")) or url != address:
        more = "" if url == address else ", with a user, a password or a query"
        raise BadInput(option="--address", found=f"{url}{more}", expected="http://HEAD:8265")


def _send(
    client: "JobSubmissionClient", metadata: dict[str, str], config: str, command: str
) -> str:
    """Starts a job with the checkout and a configuration; returns its identity."""
    try:
        with packed(config) as folder:
            return client.submit_job(
                entrypoint=command,
                submission_id=f"ebflow-{metadata['name']}-{secrets.token_hex(4)}",
                runtime_env={"working_dir": str(folder)},
                metadata=metadata,
            )
    except RuntimeError as error:
        hint = f"`ebflow doctor --address {client.get_address()}` checks it"
        line = f"the cluster did not take the job: {error}. {hint}"
        raise StageFailed(line) from error


def run_doctor(address: str) -> int:
    """Runs `ebflow doctor` as a job on a cluster, and follows it; returns its exit code."""
    variables = [f"{name}={value}" for name, value in sent_variables().items()]
    command = shlex.join(["env", *variables, "python", "-m", "pipelines.cli", "doctor"])
    command = command if "EBFLOW_HOME" in os.environ else f": {STORE} && {command}"
    client = _connect(address)
    identity = _send(client, {"name": "doctor"}, "", command)
    return _follow(client, identity, terminal(), ends=(0, 1, 2))


def _follow(
    client: "JobSubmissionClient", identity: str, console: Console, ends: tuple = (0, 2)
) -> int:
    """Prints what a job prints until it ends; returns its exit code, or that of a detached job.

    Raises:
        StageFailed: If its exit code is not among ``ends``, whose cause it prints itself.
    """
    from aiohttp import ClientError

    try:
        asyncio.run(_print_logs(client, identity))
        while not (info := client.get_job_info(identity)).status.is_terminal():
            time.sleep(POLL_S)  # the stream ends with the job, or with the node that it comes from
    except (ClientError, KeyboardInterrupt, OSError, RuntimeError) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        why = "detached" if interrupted else f"the dashboard went away ({error})"
        console.print(f"{why}; job {identity} still runs", soft_wrap=True)
        return DETACHED
    if info.driver_exit_code in ends:
        return info.driver_exit_code
    status = f"job {identity} ended {info.status.value.lower()}"
    raise StageFailed(f"{status}: {info.message}")


async def _print_logs(client: "JobSubmissionClient", identity: str) -> None:
    async for text in client.tail_job_logs(identity):
        print(text, end="", flush=True)


def entrypoint(
    run: "Run", words: Sequence[str], output: Path | None, settings: Mapping[str, str]
) -> str:
    """Returns the shell command of a run on a cluster: the typed options, then those sent.

    Arguments:
        words: The command after ``ebflow`` with its typed options.
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
    typed = [word for word in words if word not in DRY]
    sent = ["--config", CONFIG, *(["--recipe", run.recipe] if run.recipe else [])]
    python = [*(["env"] if variables else []), *variables, "python", "-m", "pipelines.cli"]
    command = shlex.join([*python, *typed, *sent])
    return f"{command} --output {place if output is None else shlex.quote(str(output))}"


def sent_variables() -> dict[str, str]:
    """Returns the variables of a job.

    Raises:
        BadInput: If one holds a password, which Ray's dashboard would show, or the tracking
            server is no URL.
    """
    variables = {name: os.environ[name] for name in SENT if os.environ.get(name)}
    bucket.url()
    uri = shared_uri() if "MLFLOW_TRACKING_URI" in variables else ""
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
