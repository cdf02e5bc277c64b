"""The command line: ``ebflow COMMAND``, with all commands in ``COMMANDS``.

A command's module is imported when the command is called, because some import torch.
"""

import gc
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from inspect import signature
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from ebflow.errors import BadInput, printable
from pipelines.cluster import environment
from pipelines.errors import StageFailed
from pipelines.interruption import interruptible

if TYPE_CHECKING:
    from pipelines.cli.run import Request

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

# Packages that no extra installs.
OURS = {"ebflow", "pipelines", "tuning", *sys.stdlib_module_names}

# The function of each command, or the pipeline of a study, as ``module:name``; a line of help. A
# function with a parameter ``words`` parses these itself; tyro parses the options of the others.
# Functions of commands that start with a word of ``RUNS`` return a :class:`Request`.
COMMANDS: dict[str, tuple[str, str]] = {
    "run density": ("pipelines.cli.run:density", "train, evaluate and report a flow on data"),
    "run paper": ("pipelines.paper.pipeline:PAPER", "the experiments of the papers, and others"),
    "run gradient-alignment": (
        "pipelines.gradient_alignment.graph:ALIGNMENT",
        "study: are the gradients of classifiers scores?",
    ),
    "run sample-complexity": (
        "pipelines.sample_complexity.graph:SAMPLE_COMPLEXITY",
        "study: how many samples does a score need?",
    ),
    "submit": ("pipelines.cli.submit:submit", "run a pipeline as a job of a Ray cluster"),
    "tune density": ("tuning.command:density", "search settings of the density pipeline"),
    "score": ("pipelines.inference.rows:score", "log-densities of rows, and their ranks"),
    "detect": ("pipelines.inference.anomalies:detect", "anomalous rows, and the reasons"),
    "sample": ("pipelines.inference.sampling:sample", "sample rows from a trained flow"),
    "impute": ("pipelines.inference.rows:impute", "sample missing values, given the others"),
    "export": ("pipelines.inference.exporting:export", "write a flow for programs without ebflow"),
    "runs": ("pipelines.cli.runs:runs", "list all runs in the terminal"),
    "logs": ("pipelines.cli.runs:logs", "print the log of a run"),
    "doctor": ("pipelines.cli.doctor:doctor", "check packages, store, MLflow and Ray"),
    "data list": ("pipelines.cli.data:named", "list the named data sets"),
    "data fetch": ("pipelines.cli.data:fetch", "download a benchmark data set"),
    "store list": ("pipelines.cli.store:contents", "list artefacts and unfinished work"),
    "store prune": ("pipelines.cli.store:prune", "delete what no run has used lately"),
    "store verify": ("pipelines.cli.store:verify", "find corrupt artefacts in the store"),
    "--version": ("pipelines.cli.main:print_version", "print the version"),
}

RUNS = ("run ", "tune ")
HELP = {"-h", "--help", "help"}


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 (failed), 2 (bad input) or 130 (Ctrl-C)."""
    words = list(sys.argv[1:] if words is None else words)
    starts = words[:1] in (["run"], ["submit"], ["tune"])
    resumes = starts and not {"--dry-run", "--dry_run"} & {*words}
    gc.set_threshold(100_000, 100)  # imports create objects and little garbage
    environment.prepare(embed=not any(word.startswith("--address") for word in words))
    try:
        again = environment.again(words)
        with interruptible():
            code = _run(words)
            sys.stdout.flush()
            return code
    except SystemExit as stop:  # tyro has printed help
        return stop.code or 0
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OURS:
            raise
        missing = f"the command needs packages that are not installed ({error.name})"
        return _stop(BAD_INPUT, f'{missing}; install them by: pip install "ebflow[system]"')
    except BadInput as error:
        return _stop(BAD_INPUT, str(error))
    except StageFailed as error:
        log = f"log: {error.log}; " if error.log else ""
        verb = "resume with" if resumes else "repeat"
        return _stop(FAILED, f"{error} ({log}fix the cause, then {verb}: {again})")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at exit
        return FAILED
    except OSError as error:
        file = f": {error.filename}" if error.filename else ""
        return _stop(FAILED, f"{error.strerror or error}{file}")
    except KeyboardInterrupt:
        return _stop(INTERRUPTED, "interrupted" + f"; resume with: {again}" * resumes)


def _stop(code: int, line: str) -> int:
    print(f"ebflow: {printable(line)}", file=sys.stderr)
    return code


def _run(words: list[str]) -> int:
    """Runs the command that the words start with; returns its exit code."""
    name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in COMMANDS), None)
    if name is None:
        return _usage(words)
    rest = words[len(name.split()) :]
    if name.startswith(RUNS):
        from pipelines.cli.run import execute

        execute(parse_run(name, rest))
        return 0
    function = resolve_name(COMMANDS[name][0])
    if "words" in signature(function).parameters:
        return function(rest)
    from pipelines.cli.parsing import call

    return call(function, f"ebflow {name}", rest) or 0


def parse_run(name: str, words: Sequence[str]) -> "Request":
    """Returns the run that the words of a command ask for; writes nothing."""
    target = resolve_name(COMMANDS[name][0])
    if callable(target):
        return target(words)
    from pipelines.cli.run import study

    return study(words, target)


def _usage(words: list[str]) -> int:
    """Prints all commands, or those that start with the first word, if the words ask for help."""
    group = [name for name in COMMANDS if name.split()[0] in words[:1]]
    if words and not HELP & {words[0], *(words[1:2] if group else ())}:
        name = " ".join(word for word in words[:2] if word not in HELP)
        raise BadInput(found=f"command {name!r}", expected=f"one of {', '.join(COMMANDS)}")
    print("usage: ebflow COMMAND [OPTIONS]\n")
    for name in group or COMMANDS:
        print(f"  ebflow {name:<23} {COMMANDS[name][1]}")
    print("\n`ebflow COMMAND --help` lists the options of a command.")
    return 0


def print_version(words: Sequence[str]) -> int:
    """Prints the version; needs no package of an extra."""
    print(f"ebflow {version('ebflow')}")
    return 0
