"""``ebflow submit PIPELINE``: a run as a job of a Ray cluster, followed to its end."""

import argparse
import asyncio
import logging
import os
import secrets
import shlex
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ebflow.errors import BadInput
from pipelines.cli.options import RunOptions
from pipelines.cluster import job
from pipelines.config.files import dump
from pipelines.config.section import Section
from pipelines.errors import StageFailed
from pipelines.reporting.terminal import terminal
from pipelines.store.paths import without_password

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

    from pipelines.engine.pipeline import Run

DETACHED = 130
TALKERS = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env")
"""Loggers of Ray that tell how the checkout is packed and sent."""

POLL_S = 0.5
TOKEN = "RAY_AUTH_TOKEN or ~/.ray/auth_token"
HELP = """usage: ebflow submit PIPELINE --address http://HEAD:8265 [options of ebflow run PIPELINE]
       ebflow submit PIPELINE --manifest > job.yaml [options of ebflow run PIPELINE]
       ebflow submit tune PIPELINE … [options of ebflow tune PIPELINE]

Runs a pipeline, or a search, on a Ray cluster, as a job that outlives this command: sends the
checkout (without what .gitignore names) and the resolved configuration, and shows what the job
tells. Ctrl-C leaves the job alone. The cluster's token is RAY_AUTH_TOKEN, or in
~/.ray/auth_token. EBFLOW_HOME, EBFLOW_STORAGE, EBFLOW_DATA and MLFLOW_TRACKING_URI hold for the
job where they are set here. Data that only the cluster sees need --recipe, which is otherwise
chosen by their columns.

  --address URL   of the cluster's dashboard, http://HOST:PORT
  --manifest      print a RayJob for Kubernetes instead, with the settings of cluster.yaml
"""


def run(words: Sequence[str]) -> int:
    """Submits a pipeline and follows it; returns the job's exit code."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--address", nargs="?")
    parser.add_argument("--manifest", action="store_true")
    ours, rest = parser.parse_known_args(list(words))
    if {"-h", "--help"} & set(rest):
        print(HELP)
        if rest[0].startswith("-"):
            return 0
    pipeline = rest[: 1 + (rest[:1] == ["tune"])]
    run_here, options = _command(pipeline), rest[len(pipeline) :]
    if ours.manifest:
        return run_here(options, carry_out=_print_manifest)
    submission = Submission(ours.address, shlex.join(["ebflow", "submit", *words]))
    run_here(options, carry_out=submission)
    return submission.code


def _command(pipeline: Sequence[str]) -> Callable[..., int]:
    """Returns the function that runs a pipeline on this machine.

    Raises:
        BadInput: If there is no such pipeline.
    """
    from pipelines.cli.main import COMMANDS, command

    known = {name.removeprefix("run "): name
             for name in COMMANDS if name.startswith(("run ", "tune "))}  # fmt: skip
    if " ".join(pipeline) not in known:
        found = f"pipeline {' '.join(pipeline)!r}" if pipeline else "no pipeline"
        raise BadInput(option="submit", found=found, expected=f"one of {', '.join(known)}")
    return command(known[" ".join(pipeline)])


def _print_manifest(run: "Run", options: RunOptions, line: str) -> dict[str, Any]:
    from pipelines.cluster.kuberay import manifest

    print(manifest(run, resolved(run)), end="")
    return {}


def resolved(run: "Run") -> Section:
    """Returns the configuration to send; the options of a search stay in its command."""
    return getattr(run.config, "base", run.config)


class Submission:
    """Sends a run to a cluster instead of carrying it out.

    Arguments:
        address: The cluster's.
        again: The command that submits it.
    """

    def __init__(self, address: str | None, again: str) -> None:
        self.address, self.again, self.code = address, again, 0

    def __call__(self, run: "Run", options: RunOptions, line: str) -> dict[str, Any]:
        """Submits a run and follows the job; what it finds out is told by the job."""
        command = job.entrypoint(run, {**job.environment(), **job.provenance()})
        console = terminal(soft_wrap=True)
        console.print(line)
        if options.dry_run:
            console.print(f"{dump(resolved(run))}{command}")
        else:
            self.code = self._follow(run, dump(resolved(run)), command, console)
        return {}

    def _follow(self, run: "Run", config: str, command: str, console: Console) -> int:
        client = _connect(self.address)
        identity = _send(client, run, config, command)
        for line in _how(client.get_address(), identity, self.again):
            console.print(line)
        from aiohttp import ClientError

        try:
            return _followed(client, identity)
        except StageFailed:
            raise
        except KeyboardInterrupt:
            why = "detached"
        except (ClientError, OSError, RuntimeError) as error:
            why = f"the dashboard went away ({error})"
        console.print(f"{why}; job {identity} goes on")
        return DETACHED


def _connect(address: str | None) -> "JobSubmissionClient":
    """Returns a client of a cluster that answers and knows our token.

    Raises:
        BadInput: If there is no such address, nothing answers, or it asks for another token.
    """
    if not (address or "").startswith(("http://", "https://")):
        raise BadInput(option="--address", found=address or "None", expected="http://HEAD:8265")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in TALKERS:
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
    shown = without_password(address)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        found = "another token" if "Authentication failed" in str(error) else "no token"
        raise BadInput(option=TOKEN, found=found, expected=f"that of {shown}") from None
    except (ConnectionError, RuntimeError) as error:
        line = str(error).partition("\n")[0]
        found = f"{shown}, where no cluster answers ({line})"
        raise BadInput(option="--address", found=found) from None


def _send(client: "JobSubmissionClient", run: "Run", config: str, command: str) -> str:
    """Returns the identity of the job."""
    with job.packed({job.CONFIG: config}) as folder:
        try:
            return client.submit_job(
                entrypoint=command,
                submission_id=f"ebflow-{run.name}-{secrets.token_hex(4)}",
                runtime_env={"working_dir": str(folder)},
                metadata={"pipeline": run.pipeline.name, "name": run.name},
            )
        except RuntimeError as error:
            line = str(error).partition("\n")[0]
            raise StageFailed(f"the cluster did not take the job: {line}") from error


def _how(address: str, identity: str, again: str) -> list[str]:
    place = f"--address {address} {identity}"
    return [
        f"job     {identity}",
        f"follow  ray job logs --follow {place}",
        f"stop    ray job stop {place}",
        f"resume  {again}",
    ]


def _followed(client: "JobSubmissionClient", identity: str) -> int:
    """Prints what a job tells until it ends; returns its exit code.

    Raises:
        StageFailed: If it failed otherwise than by bad input, which it told.
    """
    asyncio.run(_print_logs(client, identity))
    while not (found := client.get_job_info(identity)).status.is_terminal():
        time.sleep(POLL_S)
    code = _exit_code(found)
    if code not in (0, 2):
        line = (found.message or "").partition("\n")[0]
        raise StageFailed(f"job {identity} ended {found.status.value.lower()}: {line}")
    return code


async def _print_logs(client: "JobSubmissionClient", identity: str) -> None:
    async for text in client.tail_job_logs(identity):
        print(text, end="", flush=True)


def _exit_code(found: "JobDetails") -> int:
    if found.driver_exit_code is not None:
        return found.driver_exit_code
    return 0 if found.status.value == "SUCCEEDED" else 1
