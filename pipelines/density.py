"""The density pipeline, as its graph of stages.

::

    source ──> prepare ──> preprocess ──> train ──> evaluate ──> report
                  │            │            ↑          ↑            ↑
                  │            └────────────┼──────────┤            │
                  └─────────────────────────┴──────────┴────────────┘
"""

__all__ = ["DENSITY", "density"]

from redun import task
from redun.scheduler import JobInfo

from pipelines import pages, results
from pipelines.checks import check
from pipelines.config import (
    DataConfig,
    DensityConfig,
    EvaluateConfig,
    FrontConfig,
    Training,
)
from pipelines.engine import DRIVER, NAMESPACE, TITLED, Artefact, Source, own, run_stage
from pipelines.pipeline import Pipeline
from pipelines.sources import source_digest

redun_namespace = NAMESPACE

HERE = JobInfo()
"""redun puts the job in its place."""


def density(config: DensityConfig, source: Source) -> tuple[Artefact, ...]:
    """Returns what the stages make, from prepared data to the report, as expressions of redun."""
    data = prepare(config.data, source)
    front = preprocess(config.training.front, data)
    trained = train(config.training, data, front)
    evaluated = evaluate(config.evaluate, data, front, trained)
    return data, front, trained, evaluated, report(config, data, trained, evaluated)


@task(executor="driver", hash_includes=[source_digest("pipelines.stages.prepare")])
def prepare(data: DataConfig, source: Source, job: JobInfo = HERE) -> Artefact:
    """Runs in the driver: the source lies where the user is."""
    return run_stage("prepare", job, data, source.location)


@task(
    executor="ray",
    needs=own,
    hash_includes=[source_digest("pipelines.stages.preprocess")],
)
def preprocess(config: FrontConfig, data: Artefact, job: JobInfo = HERE) -> Artefact:
    """Fits what stands in front of the flow, once for all trainings that share it."""
    return run_stage("preprocess", job, config, data.path)


@task(
    executor="ray",
    needs=DRIVER,
    follows=True,
    hash_includes=[source_digest("pipelines.stages.train")],
    config_args=TITLED,
)
def train(
    config: Training, data: Artefact, front: Artefact, title: str = "", job: JobInfo = HERE
) -> Artefact:
    """Starts the training workers, and waits for them."""
    return run_stage("train", job, config, data.path, front.path, title=title)


@task(
    executor="ray",
    hash_includes=[source_digest("pipelines.stages.evaluate")],
    config_args=TITLED,
)
def evaluate(
    config: EvaluateConfig,
    data: Artefact,
    front: Artefact,
    trained: Artefact,
    title: str = "",
    job: JobInfo = HERE,
) -> Artefact:
    """Measures the flow, beside a Gaussian and a mixture of Gaussians."""
    return run_stage("evaluate", job, config, data.path, front.path, trained.path, title=title)


@task(
    executor="ray",
    hash_includes=[
        source_digest("pipelines.stages.report"),
        pages.digest("report.html.j2"),
    ],
)
def report(
    config: DensityConfig,
    data: Artefact,
    trained: Artefact,
    evaluated: Artefact,
    job: JobInfo = HERE,
) -> Artefact:
    """Makes the figures and the page."""
    return run_stage("report", job, config, data.path, trained.path, evaluated.path)


DENSITY = Pipeline(
    name="density",
    tasks=lambda config: (prepare, preprocess, train, evaluate, report),
    check=check,
    graph=density,
    describe=results.describe,
    publish=results.publish,
    log=results.log,
    conclude=results.conclude,
    show=results.show,
)
