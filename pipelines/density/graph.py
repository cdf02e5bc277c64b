"""The density pipeline, as its graph of stages.

::

    source ──> prepare ──> preprocess ──> train ──> evaluate ──> report
                  │            │            ↑          ↑            ↑
                  │            └────────────┼──────────┤            │
                  └─────────────────────────┴──────────┴────────────┘
"""

__all__ = ["DENSITY", "density"]

from pathlib import Path

from redun import task
from redun.scheduler import JobInfo

from pipelines.cluster.connection import launched
from pipelines.config import DataConfig, DensityConfig, EvaluateConfig, FrontConfig, Training
from pipelines.density import results
from pipelines.density.checks import check
from pipelines.density.source import examined
from pipelines.engine import (
    JOB_INFO,
    NAMESPACE,
    TITLED,
    Artefact,
    Source,
    of_training,
    own,
    run_stage,
)
from pipelines.engine.digests import source_digest
from pipelines.engine.pipeline import Pipeline
from pipelines.reporting import pages

redun_namespace = NAMESPACE

STAGES = "pipelines.density.stages"


def density(config: DensityConfig, source: Source) -> tuple[Artefact, ...]:
    """Returns what the stages make, from prepared data to the report, as expressions of redun."""
    data = prepare(config.data, source)
    front = preprocess(config.training.front, data)
    trained = train(config.training, data, front)
    evaluated = evaluate(config.evaluate, data, front, trained)
    return data, front, trained, evaluated, report(config, data, trained, evaluated)


@task(executor="driver", hash_includes=[source_digest(f"{STAGES}.prepare")])
def prepare(data: DataConfig, source: Source, job: JobInfo = JOB_INFO) -> Artefact:
    """Runs in the driver: the source lies where the user is."""
    return run_stage(f"{STAGES}.prepare", job, data, source.location)


@task(
    executor="ray",
    needs=own,
    hash_includes=[source_digest(f"{STAGES}.preprocess")],
)
def preprocess(config: FrontConfig, data: Artefact, job: JobInfo = JOB_INFO) -> Artefact:
    """Fits what stands in front of the flow, once for all trainings that share it."""
    return run_stage(f"{STAGES}.preprocess", job, config, data.path)


@task(
    executor="ray",
    needs=of_training,
    follows=True,
    hash_includes=[source_digest(f"{STAGES}.train")],
    config_args=TITLED,
)
def train(
    config: Training, data: Artefact, front: Artefact, title: str = "", job: JobInfo = JOB_INFO
) -> Artefact:
    """Trains here, or starts the training workers and waits for them."""
    return run_stage(f"{STAGES}.train", job, config, data.path, front.path, title=title)


@task(
    executor="ray",
    hash_includes=[source_digest(f"{STAGES}.evaluate")],
    config_args=TITLED,
)
def evaluate(
    config: EvaluateConfig,
    data: Artefact,
    front: Artefact,
    trained: Artefact,
    title: str = "",
    job: JobInfo = JOB_INFO,
) -> Artefact:
    """Measures the flow, beside a Gaussian and a mixture of Gaussians."""
    return run_stage(
        f"{STAGES}.evaluate",
        job,
        config,
        data.path,
        front.path,
        trained.path,
        title=title,
    )


@task(
    executor="ray",
    hash_includes=[
        source_digest(f"{STAGES}.report"),
        pages.digest(Path(__file__).with_name("report.html.j2")),
    ],
)
def report(
    config: DensityConfig,
    data: Artefact,
    trained: Artefact,
    evaluated: Artefact,
    job: JobInfo = JOB_INFO,
) -> Artefact:
    """Makes the figures and the page."""
    return run_stage(f"{STAGES}.report", job, config, data.path, trained.path, evaluated.path)


DENSITY = Pipeline(
    name="density",
    launches=lambda config: launched(config.cluster),
    tasks=lambda config: (prepare, preprocess, train, evaluate, report),
    check=check,
    examine=lambda config: examined(config.data),
    graph=density,
    describe=results.describe,
    publish=results.publish,
    log=results.log,
    conclude=results.conclude,
    show=results.show,
)
