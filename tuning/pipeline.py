"""The search, as its graph of stages.

::

    source ──> prepare ──> search ──> train ──> evaluate ──┐
                  │          │  └───> train ──> evaluate ──┼──> verdict
                  │          │  └───> …                  ──┘      ↑
                  └──────────┴────────────────────────────────────┘

The trainings behind the search are those of its best trials and of the base, each with several
seeds; the search never sees the rows that name the winner, nor the test rows.
"""

__all__ = ["TUNE", "again", "check", "tune"]

from typing import Any

from redun import task
from redun.scheduler import JobInfo, catch, catch_all

from ebflow.data.schema import file_sha256
from ebflow.data.sources import open_source
from ebflow.errors import BadInput
from pipelines import environment
from pipelines.checks import check as check_density
from pipelines.config import DensityConfig, Training
from pipelines.density import HERE, evaluate, prepare, preprocess, train
from pipelines.engine import NAMESPACE, Artefact, Source, run_stage
from pipelines.fanout import diverged, fail, together
from pipelines.faults import Diverged
from pipelines.pipeline import Pipeline
from pipelines.sources import source_digest
from tuning import results
from tuning.config import SearchConfig, TuneConfig
from tuning.report import TEMPLATE
from tuning.resources import concurrency, this_machine
from tuning.retraining import of_trials, trainings
from tuning.spaces import Suggest, propose

redun_namespace = NAMESPACE

PACKAGE = "tuning.stages"

Inputs = tuple[Source, DensityConfig]
"""The data, and the base with the rows for selection held out."""


def check(config: TuneConfig) -> Inputs:
    """Returns the inputs of the graph.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    base = _held_out(config.base)
    source = check_density(base)
    _check_space(config)
    if environment.embedded():
        concurrency(base, [this_machine()], config.search.max_concurrent)
    return source, base


def _check_space(config: TuneConfig) -> None:
    """Raises BadInput if all trials would be the base."""
    ask = Suggest()
    propose(ask, config.search, config.base.training)
    if not ask.params:
        raise BadInput(
            f"--over: found {' '.join(config.search.over)}, of which "
            f"{config.base.objective.name} has no parameter, expected others"
        )


def _held_out(base: DensityConfig) -> DensityConfig:
    """Returns the base with as many rows for selection as for validation, unless it says."""
    data = base.data
    if data.selection is not None:
        return base
    sizes = {"validation": data.validation, "test": data.test, "rows": data.rows}
    rows = open_source(data.source, data.columns).counts(**sizes).validation
    return base.model_copy(update={"data": data.model_copy(update={"selection": rows})})


def tune(config: TuneConfig, inputs: Inputs) -> tuple[Artefact, ...]:
    """Returns prepared data, the search and its verdict, as expressions of redun."""
    source, base = inputs
    data = prepare(base.data, source)
    found = search(config.search, of_trials(config.search, base.training), data)
    return data, found, again(config, base, data, found)


SEARCH = (
    "tuning.stages.search",
    "tuning.chronicle",
    "tuning.config",
    "tuning.records",
    "tuning.resources",
    "tuning.search",
    "tuning.spaces",
    "tuning.trial",
    "pipelines.front",
    "pipelines.training",
    "pipelines.nets",
    "pipelines.weights",
)
"""The modules that decide what a search finds."""


@task(executor="ray", hash_includes=[source_digest(*SEARCH)])
def search(config: SearchConfig, base: Training, data: Artefact, job: JobInfo = HERE) -> Artefact:
    """Fills the machine with trials."""
    return run_stage("search", job, config, base, data.path, package=PACKAGE)


@task(cache=False)
def again(config: TuneConfig, base: DensityConfig, data: Artefact, found: Artefact) -> Artefact:
    """Trains the base and the best trials again, and returns the verdict; all as expressions.

    A training that fails stops no other; one that diverges is told.
    """
    chosen = trainings(config.search, base.training, found.path)
    cells = [catch(together(_measured(base, one.config, data)), Diverged, diverged)
             for one in chosen]  # fmt: skip
    return verdict(config, data, found, catch_all(cells, Exception, fail))


def _measured(base: DensityConfig, config: Training, data: Artefact) -> tuple[Artefact, ...]:
    front = preprocess(config.front, data)
    trained = train(config, data, front)
    return trained, evaluate(base.evaluate, data, front, trained)


VERDICT = (
    "tuning.stages.verdict",
    "tuning.figures",
    "tuning.records",
    "tuning.report",
    "tuning.retraining",
    "tuning.verdict",
    "pipelines.method",
    "pipelines.report",
    "pipelines.rows",
)
"""The modules that make the verdict, its figures and its page."""


@task(executor="ray", hash_includes=[source_digest(*VERDICT), file_sha256(TEMPLATE)])
def verdict(
    config: TuneConfig, data: Artefact, found: Artefact, cells: list, job: JobInfo = HERE
) -> Artefact:
    """Names the winner, and makes tables, figures and the page."""
    told = [c if isinstance(c, str) else tuple(a.path for a in c) for c in cells]
    return run_stage("verdict", job, config, data.path, found.path, told, package=PACKAGE)


def _tasks(config: TuneConfig) -> tuple[Any, ...]:
    return prepare, search, preprocess, train, evaluate, verdict


TUNE = Pipeline(
    name="tune-density",
    tasks=_tasks,
    check=check,
    graph=tune,
    describe=results.describe,
    publish=results.publish,
    log=results.log,
    conclude=results.conclude,
    show=results.show,
)
