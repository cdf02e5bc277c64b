"""The paper's experiments, re-run: the density pipeline cell by cell, and one comparison.

::

    source ──> prepare ──> train ──> evaluate ──┐
                     └───> train ──> evaluate ──┼──> compare
                     └───> …                  ──┘
"""

__all__ = ["PAPER", "paper"]

from redun import task
from redun.scheduler import JobInfo, catch_all

from ebflow.data.schema import file_sha256
from ebflow.errors import BadInput
from pipelines import comparison, experiments
from pipelines.checks import check as check_density
from pipelines.config import PaperConfig
from pipelines.density import HERE, evaluate, prepare, train
from pipelines.engine import NAMESPACE, Artefact, Source, run_stage
from pipelines.faults import StageFailed
from pipelines.pipeline import Pipeline
from pipelines.sources import source_digest

redun_namespace = NAMESPACE


def check(config: PaperConfig) -> Source:
    """Checks every cell; returns the data's source."""
    found = [check_density(cell.config) for cell in experiments.cells(config)]
    return found[0]


def paper(config: PaperConfig, source: Source) -> Artefact:
    """Returns the comparison, as an expression of redun; a cell that fails stops no other."""
    found = []
    for cell in experiments.cells(config):
        data = prepare(cell.config.data, source)
        trained = train(cell.config.training, data)
        scored = evaluate(cell.config.evaluate, cell.config.preprocess, data, trained)
        found.append((trained, scored))
    return compare(config, catch_all(found, Exception, fail))


@task(cache=False)
def fail(results: list) -> None:
    """Ends the pipeline with the first failure, when all other cells are done."""
    errors = [item for pair in results for item in pair if isinstance(item, Exception)]
    line = f"{len(errors)} stages of {len(results)} cells failed, the first: {errors[0]}"
    raise BadInput(line) if isinstance(errors[0], BadInput) else StageFailed(line)


@task(
    executor="ray",
    hash_includes=[
        source_digest("pipelines.stages.compare", "pipelines.experiments"),
        file_sha256(comparison.TEMPLATE),
    ],
)
def compare(config: PaperConfig, found: list, job: JobInfo = HERE) -> Artefact:
    """Makes the table and the page."""
    return run_stage("compare", job, config, [tuple(a.path for a in pair) for pair in found])


PAPER = Pipeline(
    name="paper",
    tasks=(prepare, train, evaluate, compare),
    check=check,
    graph=paper,
    publish=comparison.publish,
    log=comparison.log,
    show=comparison.show,
)
