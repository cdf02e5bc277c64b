"""``ebflow tune PIPELINE``: from words to a search, and what the user sees of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import ValidationError

from ebflow.errors import BadInput
from pipelines.cli.parsing import Recipe, Running, parse, starting_point
from pipelines.cli.run import CarryOut, carry_out, run_of
from pipelines.config import DensityConfig
from pipelines.config.files import explain
from tuning.config import TuneConfig
from tuning.density.config import DensitySearch, DensityTune

if TYPE_CHECKING:
    from pipelines.engine.pipeline import Run


@dataclass(frozen=True, kw_only=True)
class Tune(Recipe):
    """Searches settings of the density pipeline that give a lower NLL than a configuration.

    That configuration, the *base*, is what the options of `ebflow run density` make; it is the
    first trial. What is not searched over stays as it is there. A trial is a training of the
    base's length with one thread, if not told otherwise, so that a machine of two cores runs two
    at a time; one that falls behind others is stopped early. The best are then trained again,
    beside the base, with several seeds: the lowest mean NLL on rows that no trial saw names the
    winner, which the test rows compare with the base. `best.yaml` is for `ebflow run density
    --config`. Interrupted, the same command goes on.
    """

    search: Annotated[DensitySearch, tyro.conf.arg(name="")] = DensitySearch()
    resume: bool = False
    """go on with an interrupted search, and refuse to begin one"""


def parse_tune(words: Sequence[str]) -> tuple[Tune, DensityTune]:
    """Returns the options of ``ebflow tune density``, and the search's configuration.

    Raises:
        BadInput: Naming the option or key, what was found, and what was expected.
        SystemExit: With code 0, after ``--help``.
    """
    base, recipe = starting_point(words, _one_thread)
    options = parse(Tune, words, "ebflow tune density", Tune(config=base, recipe=recipe))
    return options, _searched(DensityTune, options)


def _one_thread(recipe: DensityConfig) -> DensityConfig:
    return recipe.changed(train={"threads": 1})


def _searched(kind: type[TuneConfig], options: Tune) -> TuneConfig:
    try:
        return kind(search=options.search, base=options.config)
    except ValidationError as error:
        raise BadInput(explain(error, prefix="--", root=type(options.config))) from None


def search(run: "Run", options: Running, line: str) -> Mapping[str, Any]:
    """Searches here; errors as in ``_check_begun``, returns what ``carry_out`` does."""
    if options.resume:
        _check_begun(run)
    return carry_out(run, options, line)


def density(words: Sequence[str], carry_out: CarryOut = search) -> int:
    """Searches settings of the density pipeline."""
    options, config = parse_tune(words)
    line = f"recipe {options.recipe} (--recipe chooses another); {config.search.trials} trials"
    carry_out(_run(config, options, words, recipe=options.recipe), options, line)
    return 0


def _run(
    config: TuneConfig, options: Running, words: Sequence[str], recipe: str | None = None
) -> "Run":
    from tuning.pipeline import pipeline

    made = pipeline(config)
    words = (*made.name.split("-", 1), *words)
    return run_of(made, config, options, words, recipe=recipe)


def _check_begun(run: "Run") -> None:
    """Raises BadInput if there is no search to go on with, and none that has ended."""
    from pipelines.engine import runner
    from pipelines.engine.checks import check
    from tuning.records import begun

    inputs = check(run)
    ended = runner.plan(run, inputs).get("search") == "cached"
    if not ended and not begun(inputs[1]):
        raise BadInput(
            "--resume: found no search by this command that was interrupted, expected one (leave "
            "--resume out to begin)"
        )
