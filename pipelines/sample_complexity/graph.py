"""The graph of the study of sample complexity.

::

    learn (sample ──> fit ──> measure) ──┐
    learn                              ──┼──> conclude
    …                                  ──┘
"""

from pipelines.engine.graphs import gather_cells
from pipelines.engine.pipeline import Description, Pipeline
from pipelines.engine.stages import Artefact, Stage
from pipelines.sample_complexity.config import INTRO, TITLE, ComplexityConfig, cells, title

learn = Stage("pipelines.sample_complexity.learn")
conclude = Stage("pipelines.sample_complexity.conclude")


def sample_complexity(config: ComplexityConfig, inputs: None = None) -> dict[str, Artefact]:
    """Returns the report, as an expression of redun. A cell that fails stops no other."""
    rows = gather_cells(learn(cell, title=title(cell)) for cell in cells(config))
    return {"report": conclude(config, cells=rows)}


def describe(config: ComplexityConfig) -> Description:
    """Returns the scale and the seed."""
    return Description(
        parts=(f"scale {config.scale}",),
        about=f"**{TITLE}.** {INTRO}",
        tags={"ebflow.scale": config.scale, "ebflow.seed": str(config.seed)},
    )


SAMPLE_COMPLEXITY = Pipeline(
    name="sample-complexity", config=ComplexityConfig, graph=sample_complexity, describe=describe
)
