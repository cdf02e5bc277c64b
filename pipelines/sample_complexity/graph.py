"""The study of sample complexity, as its graph of stages.

::

    learn (draw ──> fit ──> measure) ──┐
    learn                            ──┼──> exponents ──> conclude
    …                                ──┘
"""

from redun.scheduler import catch_all

from pipelines.engine import Artefact, stage
from pipelines.engine.fanout import FAILED, fail
from pipelines.engine.pipeline import Pipeline
from pipelines.reporting import claims
from pipelines.sample_complexity import report
from pipelines.sample_complexity.cells import cells, title
from pipelines.sample_complexity.config import ComplexityConfig

STAGES = "pipelines.sample_complexity.stages"

learn = stage(f"{STAGES}.learn", data=["ebflow.complexity.fitted"])
exponents = stage(f"{STAGES}.exponents")
conclude = stage(f"{STAGES}.conclude", templates=[claims.TEMPLATE])


def sample_complexity(config: ComplexityConfig, inputs: None = None) -> tuple[Artefact, Artefact]:
    """Returns fitted exponents and the report, as expressions of redun.

    A cell that fails stops no other.
    """
    found = [learn(cell, title=title(cell)) for cell in cells(config)]
    fitted = exponents(config, [catch_all(found, FAILED, fail)])
    return fitted, conclude(config, [fitted])


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
