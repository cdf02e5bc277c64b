"""The study of sample complexity, as its graph of stages.

::

    learn (draw ──> fit ──> measure) ──┐
    learn                            ──┼──> exponents ──> conclude
    …                                ──┘
"""

__all__ = ["SAMPLE_COMPLEXITY", "sample_complexity"]

from redun import task
from redun.scheduler import JobInfo, catch_all

from pipelines.engine import JOB_INFO, NAMESPACE, Artefact, run_stage
from pipelines.engine.digests import source_digest
from pipelines.engine.fanout import fail
from pipelines.engine.pipeline import Pipeline
from pipelines.reporting import claims, pages, titles
from pipelines.sample_complexity import report
from pipelines.sample_complexity.cells import cells
from pipelines.sample_complexity.config import CellConfig, ComplexityConfig

redun_namespace = NAMESPACE

STAGES = "pipelines.sample_complexity.stages"


def sample_complexity(config: ComplexityConfig, inputs: None = None) -> tuple[Artefact, Artefact]:
    """Returns fitted exponents and the report, as expressions of redun.

    A cell that fails stops no other.
    """
    found = [learn(cell) for cell in cells(config)]
    fitted = exponents(config, catch_all(found, Exception, fail))
    return fitted, conclude(config, fitted)


@task(executor="ray", hash_includes=[source_digest(f"{STAGES}.learn")])
def learn(cell: CellConfig, job: JobInfo = JOB_INFO) -> Artefact:
    """Draws, fits and measures the many seeds of one cell, on one core."""
    return run_stage(f"{STAGES}.learn", job, cell, title=titles.cell(cell))


@task(executor="ray", hash_includes=[source_digest(f"{STAGES}.exponents")])
def exponents(
    config: ComplexityConfig, found: list[Artefact], job: JobInfo = JOB_INFO
) -> Artefact:
    """Puts the rows of all cells together, and fits how many samples are needed."""
    return run_stage(f"{STAGES}.exponents", job, config, [cell.path for cell in found])


@task(
    executor="ray",
    hash_includes=[
        source_digest(f"{STAGES}.conclude"),
        pages.digest(claims.TEMPLATE),
    ],
)
def conclude(config: ComplexityConfig, fitted: Artefact, job: JobInfo = JOB_INFO) -> Artefact:
    """Judges the claims, and makes the figures and the page."""
    return run_stage(f"{STAGES}.conclude", job, config, fitted.path)


SAMPLE_COMPLEXITY = Pipeline(
    name="sample-complexity",
    launches=lambda config: False,
    tasks=lambda config: (learn, exponents, conclude),
    check=lambda config: None,
    examine=lambda config: None,
    graph=sample_complexity,
    describe=report.describe,
    publish=report.publish,
    log=report.log,
    conclude=claims.conclude,
    show=report.show,
)
