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

from ebflow.errors import BadInput
from pipelines.config.source import examined
from pipelines.engine import Artefact, Source, Stage
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.tasks import gather_cells, subgraph
from pipelines.reporting import claims
from tuning import records, results
from tuning.config import TuneConfig
from tuning.problems import PROBLEMS, problem
from tuning.search import concurrency, this_machine
from tuning.suggest import Suggest
from tuning.verdict import trainings

search = Stage("tuning.stages.search", needs={"CPU": 0}, follows=True)
verdict = Stage("tuning.stages.verdict", data=["tuning", "pipelines.reporting"])

Inputs = tuple[Source, TuneConfig]
"""The data, and the search around a pipeline that holds out rows for selection."""


def check(config: TuneConfig) -> Inputs:
    """Returns the inputs of the graph.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    source, whole = problem(config).check()
    held = config.changed(base=whole)
    searched, ask = problem(held), Suggest()
    searched.propose(ask)
    if not ask.params:
        raise BadInput(
            f"--over: found {' '.join(config.search.over)}, of which "
            f"{searched.label(searched.base)} has no parameter, expected others"
        )
    concurrency(searched, this_machine())
    return source, held


def examine(config: TuneConfig) -> None:
    """Reads the data; raises BadInput at the first thing wrong with them."""
    _, whole = problem(config).check()
    examined(whole.data)


def tune(config: TuneConfig, inputs: Inputs) -> tuple[Artefact, ...]:
    """Returns prepared data, the search and its verdict, as expressions of redun."""
    source, held = inputs
    given = problem(held).inputs(source)
    found = search(held, [given])
    return given[0], found, again(config, held, given, found)


@subgraph()
def again(
    config: TuneConfig, held: TuneConfig, given: tuple[Artefact, ...], found: Artefact
) -> Artefact:
    """Trains the base and the best trials again, and returns the verdict; all as expressions.

    A training that fails stops no other; one that diverges is told.
    """
    searched = problem(held)
    chosen = trainings(searched, records.load(found.path))
    cells = gather_cells(searched.measured(one.config, one.title, given) for one in chosen)
    return verdict(config, [given[0], found, cells])


def pipeline(config: TuneConfig) -> Pipeline:
    """Returns the pipeline of a search, whose name is that of its command and experiment."""
    kind = PROBLEMS[type(config)]
    return Pipeline(
        name=f"tune-{kind.pipeline}",
        check=check,
        examine=examine,
        graph=tune,
        describe=results.describe,
        publish=lambda value, folder: claims.publish(value[-1], folder),
        metrics=results.metrics,
        log=results.log,
        conclude=results.conclude,
        show=results.show,
    )
