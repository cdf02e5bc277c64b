"""From words on the command line to a configuration, or to one line that says what is wrong."""

__all__ = ["Density", "Paper", "Running", "parse", "parse_density", "parse_pipeline"]

import argparse
import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import ValidationError

from ebflow.errors import BadInput
from pipelines import recipes
from pipelines.config import DensityConfig, PaperConfig
from pipelines.config_files import explain, for_objective, load, peek

BORDER = re.compile(r"^\s*[│|+╭╰]\s*|\s*[│|+╮╯]\s*$|^\s*[-─]+\s*$")
ENDS = ("Argument helptext:", "For full helptext", "Perhaps you meant:")
REWORDED = {
    r"^Error parsing ": "",
    r"no type matching {None}\|(\S+) could be instantiated from \['(.*?)'\].*$": r"found '\2', "
    r"expected \1 or None",
    r"Could not find valid parse for arguments: (.*)$": r"found \1, expected other values",
    r"could not convert string to float: (.*)$": r"found \1, expected a number",
    r"invalid literal for int\(\) with base 10: (.*)$": r"found \1, expected a whole number",
    r"^invalid choice (.*) for argument '(\S+)'\. Expected": r"\2: found \1, expected",
    r"^Missing value for argument '(\S+)'\. Expected (\d+) values": r"\1: found no value, "
    r"expected \2",
    r"^Unrecognized options: ": "found unknown ",
}
"""tyro's sentences, as: option, what was found, what was expected."""

Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class Running:
    """What every pipeline can be told about a run."""

    output: Path | None = None
    """folder for the results; None: runs/PIPELINE/NAME"""
    force: bool = False
    """run every stage again"""
    dry_run: bool = False
    """print the configuration and which stages would run; write nothing"""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML file to start from, such as the config.yaml of an earlier run"""


@dataclass(frozen=True, kw_only=True)
class Density(Running):
    """Trains, evaluates and tracks an energy-based flow on a data set.

    Options go over the configuration file, which goes over the recipe. An objective other than
    theirs takes of its options from them only those that it uses.
    """

    config: Annotated[DensityConfig, tyro.conf.arg(name="")]
    recipe: str = "digits"
    """named configuration to start from (digits, mnist9k, tabular, paper); by default the one
    for the source: digits for digits, mnist9k for images, tabular for columns of numbers"""


@dataclass(frozen=True, kw_only=True)
class Paper(Running):
    """Runs an experiment of the paper again, and shows published beside measured numbers.

    Takes about 20 minutes at scale cpu. Interrupted, it goes on where it stopped.
    """

    config: Annotated[PaperConfig, tyro.conf.arg(name="")] = PaperConfig()


def parse_density(words: Sequence[str]) -> Density:
    """Returns the options of ``ebflow run density``.

    Raises:
        BadInput: Naming the option or key, what was found, and what was expected.
        SystemExit: With code 0, after ``--help``.
    """
    base, recipe = _base(words)
    return parse(Density, words, "ebflow run density", Density(config=base, recipe=recipe))


def parse_pipeline(kind: type[Options], words: Sequence[str], program: str) -> Options:
    """Returns a pipeline's options, over those of its configuration file if there is one.

    Errors as in :func:`parse_density`.
    """
    file, base = _first(words, "--config")["config"], kind().config
    base = load(Path(file), base) if file else base
    return parse(kind, words, program, kind(config=base))


def parse(
    kind: type[Options], words: Sequence[str], program: str, default: Options | None = None
) -> Options:
    """Returns options of a kind; help and errors as in :func:`parse_density`."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(kind, args=list(words), prog=program, default=default)
    except ValidationError as error:
        raise BadInput(explain(error, prefix="--")) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        raise BadInput(_reason(stop, told.getvalue())) from None


def _base(words: Sequence[str]) -> tuple[DensityConfig, str]:
    """Returns what the options go over, and the name of its recipe."""
    names = ("--recipe", "--config", "--data.source", "--objective.name")
    found = _first(words, *names, several=("--data.columns",))
    if "--help" in words or "-h" in words:
        name = found["recipe"] or "digits"
        return recipes.named(name), name
    file = found["config"] and Path(found["config"])
    source = found["data.source"] or (file and peek(file)) or "digits"
    if found["recipe"] is not None:
        base, name = recipes.named(found["recipe"]), found["recipe"]
    else:
        base, name = recipes.for_source(source, found["data.columns"])
    base = load(file, base) if file else base
    return for_objective(base, found["objective.name"]), name


def _first(words: Sequence[str], *names: str, several: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what some options are, before all are parsed; None where they are not given."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        first.add_argument(name, nargs="?")
    for name in several:
        first.add_argument(name, nargs="*")
    return vars(first.parse_known_args(list(words))[0])


def _reason(stop: SystemExit, told: str) -> str:
    for error in _chain(stop):
        if isinstance(error, ValidationError):
            return explain(error, prefix="--")
    inside = (BORDER.sub("", line) for line in told.splitlines()[1:-1])
    text = " ".join(line.strip() for line in inside if line.strip("-─ "))
    said = re.split("|".join(ENDS), text)[0].strip(" .")
    for pattern, line in REWORDED.items():
        said = re.sub(pattern, line, said)
    near = re.search(r"Perhaps you meant: (--\S+)", text)
    return f"{said} (did you mean {near[1]}?)" if near else said


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__
