"""``ebflow tune PIPELINE``: from words to a search, and what the user sees of it."""

__all__ = ["Tune", "density", "parse_tune"]

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import ValidationError

from ebflow.errors import BadInput
from pipelines.command import carry_out
from pipelines.config import DensityConfig
from pipelines.config_files import explain
from pipelines.parsing import Density, parse, starting_point
from tuning.config import SearchConfig, TuneConfig

if TYPE_CHECKING:
    from pipelines.runner import Run

PROGRAM = "ebflow tune density"


@dataclass(frozen=True, kw_only=True)
class Tune(Density):
    """Searches settings of the density pipeline that give a lower NLL than a configuration.

    That configuration, the *base*, is what the options of `ebflow run density` make; it is the
    first trial. What is not searched over stays as it is there. A trial is a training of the
    base's length with one thread, if not told otherwise, so that a machine of two cores runs two
    at a time; one that falls behind others is stopped early. The best are then trained again,
    beside the base, with several seeds: the lowest mean NLL on rows that no trial saw names the
    winner, which the test rows compare with the base. `best.yaml` is for `ebflow run density
    --config`. Interrupted, the same command goes on.
    """

    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = SearchConfig()
    resume: bool = False
    """go on with an interrupted search, and refuse to begin one"""


def parse_tune(words: Sequence[str]) -> tuple[Tune, TuneConfig]:
    """Returns the options of ``ebflow tune density``, and the search's configuration.

    Raises:
        BadInput: Naming the option or key, what was found, and what was expected.
        SystemExit: With code 0, after ``--help``.
    """
    base, recipe = starting_point(words, _one_thread)
    options = parse(Tune, words, PROGRAM, Tune(config=base, recipe=recipe))
    try:
        config = TuneConfig(name=options.config.name, search=options.search, base=options.config)
    except ValidationError as error:
        raise BadInput(explain(error, prefix="--")) from None
    return options, config


def _one_thread(recipe: DensityConfig) -> DensityConfig:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"threads": 1})})


def density(words: Sequence[str]) -> int:
    """Searches settings of the density pipeline."""
    options, config = parse_tune(words)
    from pipelines.engine import Retries
    from pipelines.runner import Run
    from tuning.pipeline import TUNE

    run = Run(
        pipeline=TUNE,
        name=config.name,
        config=config,
        output=options.output or Path("runs/tune") / config.name,
        command=shlex.join(["ebflow", "tune", "density", *words]),
        recipe=options.recipe,
        workers=config.base.cluster.workers,
        force=options.force,
        retries=Retries(options.retries, options.retry_pause),
    )
    if options.resume:
        _check_begun(run)
    told = f"recipe {options.recipe} (--recipe chooses another); {config.search.trials} trials"
    carry_out(run, options, told)
    return 0


def _check_begun(run: "Run") -> None:
    """Raises BadInput if there is no search to go on with, and none that has ended."""
    from pipelines import runner
    from tuning.begun import begun
    from tuning.retraining import of_trials

    inputs = runner.check(run)
    trained = of_trials(run.config.search, inputs[1].training)
    ended = runner.plan(run, inputs)["search"] == "cached"
    if not ended and not begun(run.config.search, trained):
        raise BadInput(
            "--resume: found no search by this command that was interrupted, expected one (leave "
            "--resume out to begin)"
        )
