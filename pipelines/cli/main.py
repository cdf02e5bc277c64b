"""The command line: ``ebflow COMMAND``, with all commands in ``COMMANDS``.

A command's module is imported when the command is called, because some import torch.
"""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from inspect import signature
from pkgutil import resolve_name

from ebflow.errors import BadInput, printable
from pipelines.cluster import environment
from pipelines.errors import StageFailed
from pipelines.interruption import interruptible

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

OURS = {"ebflow", "pipelines", "tuning", *sys.stdlib_module_names}
"""Packages that no extra installs."""

COMMANDS: dict[str, tuple[str, str]] = {
    "run density": ("pipelines.cli.run:density", "train, evaluate and report a flow on data"),
    "run paper": ("pipelines.paper.graph:PAPER", "the experiments of the paper, and others"),
    "run gradient-alignment": (
        "pipelines.gradient_alignment.graph:ALIGNMENT",
        "study: are the gradients of classifiers scores?",
    ),
    "run sample-complexity": (
        "pipelines.sample_complexity.graph:SAMPLE_COMPLEXITY",
        "study: how many samples does a score need?",
    ),
    "submit": ("pipelines.cli.submit:run", "run a pipeline as a job of a Ray cluster"),
    "tune density": ("tuning.command:density", "search settings of the density pipeline"),
    "score": ("pipelines.inference.rows:score", "log-densities of rows, and their ranks"),
    "sample": ("pipelines.inference.sampling:sample", "sample rows from a trained flow"),
    "impute": ("pipelines.inference.rows:impute", "sample missing values, given the others"),
    "export": ("pipelines.inference.exporting:export", "write a flow for programs without ebflow"),
    "runs": ("pipelines.cli.runs:runs", "list all runs in the terminal"),
    "data list": ("pipelines.cli.data:named", "list the named data sets"),
    "data fetch": ("pipelines.cli.data:fetch", "download a benchmark data set"),
    "store verify": ("pipelines.cli.runs:verify", "find corrupt artefacts in the store"),
    "--version": ("pipelines.cli.main:print_version", "print the version"),
}
"""The function of each command, or the pipeline of a study, as ``module:name``; a line of help."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 (failed), 2 (bad input) or 130 (Ctrl-C)."""
    words = list(sys.argv[1:] if words is None else words)
    again = shlex.join(["ebflow", *words])
    environment.prepare(embed=words[:1] != ["submit"])
    try:
        with interruptible():
            name = _name(words)
            code = command(name)(words[len(name.split()) :]) if name else usage(words)
            sys.stdout.flush()
            return code
    except SystemExit as stop:  # tyro has printed help or an error
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
        return _stop(FAILED, f"{error} ({log}fix the cause, then resume with: {again})")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at exit
        return FAILED
    except OSError as error:
        file = f": {error.filename}" if error.filename else ""
        return _stop(FAILED, f"{error.strerror or error}{file}")
    except KeyboardInterrupt:
        return _stop(INTERRUPTED, f"interrupted; resume with: {again}")


def _stop(code: int, line: str) -> int:
    print(f"ebflow: {printable(line)}", file=sys.stderr)
    return code


def _name(words: list[str]) -> str:
    """Returns the name of the command at the start of the words; empty if they ask for help."""
    for name in (" ".join(words[:2]), words[0] if words else ""):
        if name in COMMANDS:
            return name
    if not words or {"-h", "--help", "help"} & set(words):
        return ""
    expected = f"one of {', '.join(COMMANDS)}"
    raise BadInput(found=f"command {' '.join(words[:2])!r}", expected=expected)


def command(name: str) -> Callable[..., int]:
    """Returns the function that runs a command's words.

    Commands without a parameter ``words`` are functions of their options, which tyro parses.
    """
    function = resolve_name(COMMANDS[name][0])
    if not callable(function):
        return partial(resolve_name("pipelines.cli.run:study"), pipeline=function)
    if "words" in signature(function).parameters:
        return function
    import tyro

    return lambda words: tyro.cli(function, prog=f"ebflow {name}", args=words) or 0


def usage(words: Sequence[str]) -> int:
    """Prints all commands, or those that start with the first word."""
    group = [name for name in COMMANDS if words and name.split()[0] == words[0]]
    print("usage: ebflow COMMAND [OPTIONS]\n")
    for name in group or COMMANDS:
        print(f"  ebflow {name:<23} {COMMANDS[name][1]}")
    print("\n`ebflow COMMAND --help` lists the options of a command.")
    return 0


def print_version(words: Sequence[str]) -> int:
    """Prints the version; needs no package of an extra."""
    print(f"ebflow {version('ebflow')}")
    return 0
