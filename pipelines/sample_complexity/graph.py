"""The study of sample complexity, as its graph of stages.

::

    learn (draw ──> fit ──> measure) ──┐
    learn                            ──┼──> conclude
    …                                ──┘
"""

from redun.scheduler import catch_all

from pipelines.engine import Artefact, Stage
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.tasks import FAILED, fail
from pipelines.reporting import claims
from pipelines.sample_complexity import results
from pipelines.sample_complexity.cells import cells, title
from pipelines.sample_complexity.config import ComplexityConfig

STAGES = "pipelines.sample_complexity.stages"

learn = Stage(f"{STAGES}.learn", data=["ebflow.complexity.fitted"])
conclude = Stage(f"{STAGES}.conclude", data=["pipelines.reporting"])


def sample_complexity(config: ComplexityConfig, inputs: None = None) -> Artefact:
    """Returns the report, as an expression of redun. A cell that fails stops no other."""
    found = [learn(cell, title=title(cell)) for cell in cells(config)]
    return conclude(config, [catch_all(found, FAILED, fail)])


SAMPLE_COMPLEXITY = Pipeline(
    name="sample-complexity",
    check=lambda config: None,
    examine=lambda config: None,
    graph=sample_complexity,
    describe=results.describe,
    publish=claims.publish,
    metrics=lambda summary: summary["cost"],
    conclude=claims.conclude,
    show=results.show,
)
