"""The search, as its graph of stages.

::

    source ──> prepare ──> … ──> search ──> train ──> measure ──┐
                  │         │      │  └───> train ──> measure ──┼──> verdict
                  │         │      │  └───> …                 ──┘      ↑
                  └─────────┴──────┴───────────────────────────────────┘

What trials read is made before. The trainings behind the search are those of its best trials and
of the base, each with several seeds; the search never sees the rows that name the winner, nor the
test rows.
"""

from redun.scheduler import catch, catch_all

from ebflow.errors import BadInput
from pipelines.config import Section
from pipelines.config.source import examined
from pipelines.engine import Artefact, Source, glue, stage
from pipelines.engine.fanout import diverged, fail, together
from pipelines.engine.pipeline import Pipeline
from pipelines.errors import Diverged
from tuning import TEMPLATE, results
from tuning.config import SearchConfig, TuneConfig
from tuning.problem import Problem
from tuning.problems import problem
from tuning.resources import concurrency, this_machine
from tuning.retraining import trainings
from tuning.suggest import Suggest

search = stage("tuning.stages.search", needs={"CPU": 0}, follows=True)
verdict = stage("tuning.stages.verdict", templates=[TEMPLATE])

Inputs = tuple[Source, Section]
"""The data, and the pipeline's configuration with the rows for selection held out."""


def check(config: TuneConfig) -> Inputs:
    """Returns the inputs of the graph.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    source, whole = problem(config.search).check(config.base)
    base = problem(config.search).base(whole)
    _check_space(config.search, base)
    concurrency(base, config.search, this_machine())
    return source, whole


def examine(config: TuneConfig) -> None:
    """Reads the data; raises BadInput at the first thing wrong with them."""
    _, whole = problem(config.search).check(config.base)
    examined(whole.data)


def _check_space(config: SearchConfig, base: Section) -> None:
    """Raises BadInput if all trials would be the base."""
    ask = Suggest()
    problem(config).propose(ask, base)
    if not ask.params:
        raise BadInput(
            f"--over: found {' '.join(config.over)}, of which "
            f"{problem(config).label(base)} has no parameter, expected others"
        )


def tune(config: TuneConfig, inputs: Inputs) -> tuple[Artefact, ...]:
    """Returns prepared data, the search and its verdict, as expressions of redun."""
    source, whole = inputs
    search_problem = problem(config.search)
    given = search_problem.inputs(whole, source)
    found = search(config.search, [search_problem.base(whole), given])
    return given[0], found, again(config, whole, given, found)


@glue()
def again(
    config: TuneConfig, whole: Section, given: tuple[Artefact, ...], found: Artefact
) -> Artefact:
    """Trains the base and the best trials again, and returns the verdict; all as expressions.

    A training that fails stops no other; one that diverges is told.
    """
    measured = problem(config.search).measured
    cells = [
        catch(together(measured(whole, one.config, one.title, given)), Diverged, diverged)
        for one in trainings(config.search, whole, found.path)
    ]
    return verdict(config, [given[0], found, catch_all(cells, Exception, fail)])


def pipeline(search_problem: Problem) -> Pipeline:
    """Returns the pipeline of a search, whose name is that of its command and experiment."""
    stages = dict.fromkeys((*search_problem.before, search, *search_problem.after, verdict))
    return Pipeline(
        name=f"tune-{search_problem.pipeline}",
        tasks=lambda config: tuple(stages),
        check=check,
        examine=examine,
        graph=tune,
        describe=results.describe,
        publish=results.publish,
        log=results.log,
        conclude=results.conclude,
        show=results.show,
    )
