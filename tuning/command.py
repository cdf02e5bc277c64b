"""``ebflow tune density``: from the command line to a search."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Generic, TypeVar

import tyro

from ebflow.errors import BadInput
from pipelines.cli.parsing import parsed
from pipelines.cli.run import Overrides, RecipeOptions, Request, from_recipe, option_types
from pipelines.config import recipes
from pipelines.config.files import checked
from tuning.config import SearchConfig, TuneConfig

Searched = TypeVar("Searched")

ONE_FLOW = {"train": {"threads": 1}, "rival": None}  # Trials train one flow, with one thread


@dataclass(frozen=True, kw_only=True)
class Tune(RecipeOptions[Overrides], Generic[Overrides, Searched]):
    """Searches options of the density pipeline that give a lower NLL than a default.

    The *default* is the configuration of `ebflow run density` with the same options; it is the
    first trial. Options that are not searched stay as they are there. A trial trains as long as
    the default, with one thread unless --train.threads is set; Ray Tune stops it early if it falls
    behind the others. The best trials and the default are then trained again with several seeds.
    The lowest mean NLL on rows that no trial saw decides the winner, and the test rows compare it
    with the default. `best.yaml` is for `ebflow run density --config`. After an interruption the
    same command resumes the search.
    """

    search: Annotated[Searched, tyro.conf.arg(name="")]


def parse_tune(words: Sequence[str]) -> tuple[Tune, TuneConfig]:
    """Returns the options of ``ebflow tune density``, and the search's configuration.

    Raises:
        BadInput: Naming the option or key, what was found, and what was expected.
        SystemExit: After ``--help``.
    """
    defaults = recipes.digits().changed(**ONE_FLOW)
    kind = Tune[option_types(defaults), option_types(SearchConfig())]
    options = parsed(kind, "ebflow tune density", words)
    base, recipe = from_recipe(options, **ONE_FLOW)
    if rival := options.overrides.get("rival"):
        raise BadInput(option="--rival", found=rival, expected="none in a search")
    search = checked(SearchConfig, options.search)
    config = TuneConfig(search=search, base=base.changed(rival=None))
    return replace(options, recipe=recipe), config


def density(words: Sequence[str]) -> Request:
    """Returns the search that the words ask for."""
    options, config = parse_tune(words)
    from tuning.graph import TUNE

    line = f"recipe {options.recipe} (--recipe chooses another); {config.search.trials} trials"
    words = ("tune", "density", *words)
    return Request.of(TUNE, config, options, words, line, options.recipe)
