"""The graph of all items of the papers: the graphs of their studies, and one page.

::

    graph of an experiment ──> report ──┐
    graph of a study       ──> report ──┼──> collect
    …                                 ──┘
"""

from ebflow.errors import BadInput
from pipelines.engine.graphs import all_or_fail
from pipelines.engine.pipeline import Description, Pipeline
from pipelines.engine.stages import Artefact, Stage
from pipelines.paper.config import PaperConfig
from pipelines.paper.everything.studies import HANDED_ON, studies

# Figures and results of the studies are read where the command runs.
collect = Stage("pipelines.paper.everything.collect", executor="driver")

USED = {"experiment", "scale", "name", "source", *HANDED_ON}


def check(config: PaperConfig) -> dict[str, object]:
    """Checks the options; returns the inputs of each study's graph, by the name of the study."""
    for name, field in PaperConfig.model_fields.items():
        if name not in USED and getattr(config, name) != field.default:
            problem = "experiment all does not use it"
            raise BadInput(problem, option=f"--{name}", hint="Leave it out")
    return {study.name: study.pipeline.check(study.config) for study in studies(config)}


def examine(config: PaperConfig) -> None:
    """Reads the data of all studies."""
    for study in studies(config):
        study.pipeline.examine(study.config)


def everything(config: PaperConfig, inputs: dict[str, object]) -> dict[str, Artefact]:
    """Returns the page, as an expression of redun. A study that fails stops no other."""
    reports = [
        study.pipeline.graph(study.config, inputs[study.name])["report"]
        for study in studies(config)
    ]
    return {"report": collect(config, reports=all_or_fail(reports))}


def describe(config: PaperConfig) -> Description:
    """Returns the scale."""
    return Description(
        parts=("every item", f"scale {config.scale}"),
        about="**Every item of the three papers**, measured: one page.",
        tags={"ebflow.experiment": "all", "ebflow.scale": config.scale},
    )


EVERYTHING = Pipeline(
    name="paper",
    config=PaperConfig,
    check=check,
    examine=examine,
    graph=everything,
    describe=describe,
)
