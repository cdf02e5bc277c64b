"""From words on the command line to a configuration, or to one line that says what is wrong."""

import argparse
import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
from pydantic import ValidationError

from ebflow.errors import BadInput
from pipelines.cli.studies import Study
from pipelines.config import DataConfig, DensityConfig, Section, recipes
from pipelines.config.files import explain, for_objective, load, peek

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
    r" \(required\) ": "; ",
    r"^Missing from (ebflow[\w -]*): (.*) \(required\)$": r"\1: expected also \2",
    r"'([\w-]+)'(?=[^(]*\)$)": r"\1",
    r"(expected one of) \((.*)\)$": r"\1 \2",
}
"""tyro's sentences, as: option, what was found, what was expected."""

RECIPE = (
    f"named configuration to start from ({', '.join(recipes.RECIPES)}); by default the one for "
    "the source: digits for digits, images or large for images, tabular or wide for columns of "
    "numbers, by their size"
)

MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ALIAS = re.compile(r"(?!latest$|v\d+$)[a-z0-9_-]{1,255}", re.IGNORECASE)
"""Names of registered models and of their versions."""

Options = TypeVar("Options")
Config = TypeVar("Config", bound=Section)


@dataclass(frozen=True, kw_only=True)
class Running:
    """What every pipeline can be told about a run."""

    output: Path | None = None
    """folder for the results; None: runs/PIPELINE/NAME"""
    force: bool = False
    """run every stage again"""
    retries: int = 2
    """times that a stage is tried again after a failure of a disk, the network or a node"""
    retry_pause: float = 5.0
    """seconds before it is, the first time; each time twice as long"""
    dry_run: bool = False
    """print the configuration and which stages would run; write nothing"""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """YAML file to start from, such as the config.yaml of an earlier run"""


@dataclass(frozen=True, kw_only=True)
class Configured(Running, Generic[Config]):
    """A run and its configuration, options of which go over a file's."""

    config: Annotated[Config, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class Recipe(Configured[DensityConfig]):
    """A run that starts from a recipe of the density pipeline."""

    recipe: Annotated[str, tyro.conf.arg(help=RECIPE)] = "digits"


@dataclass(frozen=True, kw_only=True)
class Density(Recipe):
    """Trains, evaluates and tracks an energy-based flow on a data set.

    Options go over the configuration file, which goes over the recipe. An objective other than
    theirs takes of its options from them only those that it uses.
    """

    register: str | None = None
    """register the trained flow as a model of this name in MLflow"""
    alias: str | None = None
    """name that is to point to the registered version, such as champion"""


def parse_density(words: Sequence[str]) -> Density:
    """Returns the options of ``ebflow run density``.

    Raises:
        BadInput: Naming the option or key, what was found, and what was expected.
        SystemExit: With code 0, after ``--help``.
    """
    base, recipe = starting_point(words)
    options = parse(Density, words, "ebflow run density", Density(config=base, recipe=recipe))
    check_names(options.register, options.alias)
    return options


def check_names(model: str | None, alias: str | None) -> None:
    """Raises BadInput unless MLflow takes the names, and an alias has a model."""
    if model is not None and not MODEL.fullmatch(model):
        raise BadInput(f"--register: found {model!r}, expected letters, digits, '.', '_' and '-'")
    if alias is None:
        return
    if model is None:
        raise BadInput(f"--alias: found {alias!r} without --register, expected both")
    if not ALIAS.fullmatch(alias):
        raise BadInput(
            f"--alias: found {alias!r}, expected letters, digits, '_' and '-', and neither latest "
            "nor a version such as v1"
        )


def parse_study(words: Sequence[str], study: Study) -> Configured:
    """Returns the options of ``ebflow run STUDY``; errors as in :func:`parse_density`."""
    base, program = started(words, study), f"ebflow run {study.name}"
    kind = Configured[type(base)]  # type: ignore[misc]
    return parse(kind, words, program, Configured(config=base), study.about)


def started(words: Sequence[str], study: Study) -> Section:
    """Returns what the options go over: a study's scale, and over that a file."""
    found = _found(words, "--scale", "--config")
    base, file = study.base(found["scale"]), found["config"]
    return load(Path(file), base) if file else base


def parse(
    kind: type[Options],
    words: Sequence[str],
    program: str,
    default: Options | None = None,
    about: str | None = None,
) -> Options:
    """Returns options of a kind; help and errors as in :func:`parse_density`."""
    printed, root = io.StringIO(), type(getattr(default, "config", None))
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(
                kind, prog=program, description=about, args=list(words), default=default
            )
    except ValidationError as error:
        raise BadInput(explain(error, prefix="--", root=root)) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        raise BadInput(_reason(stop, printed.getvalue(), root)) from None


def starting_point(
    words: Sequence[str], adapt: Callable[[DensityConfig], DensityConfig] = lambda recipe: recipe
) -> tuple[DensityConfig, str]:
    """Returns what the options go over, and the name of its recipe.

    Arguments:
        words: The command line.
        adapt: Changes a recipe, before a file or an option does.

    Raises:
        BadInput: If there is no such recipe, file or data set.
    """
    named = ("--recipe", "--config", "--objective.name")
    places = [f"--data.{name.replace('_', '-')}" for name in DataConfig.model_fields]
    found = _found(words, *named, *places, several=("--data.columns", "--data.context"))
    if "--help" in words or "-h" in words:
        name = found["recipe"] or "digits"
        return adapt(recipes.named(name)), name
    file = found["config"] and Path(found["config"])
    chosen = peek(file) if file else {}
    typed = {name: found[f"data.{name}"] for name in DataConfig.model_fields}
    chosen |= {name: value for name, value in typed.items() if value not in (None, "None")}
    data = _valid(chosen)
    if name := found["recipe"]:
        base = recipes.named(name, data.source if "source" in chosen else None)
    else:
        base, name = recipes.for_source(data, found["objective.name"])
    base = load(file, adapt(base)) if file else adapt(base)
    return for_objective(base, found["objective.name"]), name


def _valid(data: Mapping[str, Any]) -> DataConfig:
    """Returns what is told of data; of what is wrong, which is told later, the default."""
    try:
        return DataConfig.model_validate(data)
    except ValidationError:
        return DataConfig()


def _found(words: Sequence[str], *names: str, several: Sequence[str] = ()) -> dict[str, Any]:
    """Returns some options as they were typed, None where not; ``several`` have many words."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        first.add_argument(name, nargs="*" if name in several else "?")
    return vars(first.parse_known_args(list(words))[0])


def _reason(stop: SystemExit, printed: str, root: type[Section]) -> str:
    error: BaseException | None = stop
    while error is not None and not isinstance(error, ValidationError):
        error = error.__context__
    if error is not None:
        return explain(error, prefix="--", root=root)
    inside = (BORDER.sub("", line) for line in printed.splitlines()[1:-1])
    text = " ".join(line.strip() for line in inside if line.strip("-─ "))
    said = re.split("|".join(ENDS), text)[0].strip(" .")
    for pattern, line in REWORDED.items():
        said = re.sub(pattern, line, said)
    near = re.search(r"Perhaps you meant: (--\S+)", text)
    return f"{said} (did you mean {near[1]}?)" if near else said
