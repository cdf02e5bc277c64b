"""``ebflow run paper``: one experiment, or every item of the three papers."""

from pipelines.engine.pipeline import Description, Pipeline
from pipelines.engine.stages import Artefact
from pipelines.paper.config import PaperConfig
from pipelines.paper.graph import EXPERIMENT


def chosen(config: PaperConfig) -> Pipeline:
    """Returns the pipeline that a configuration asks for."""
    if config.experiment != "all":
        return EXPERIMENT
    from pipelines.paper.everything.graph import EVERYTHING  # imports torch and MLflow

    return EVERYTHING


def check(config: PaperConfig) -> object:
    """Checks the options; returns the inputs of the graph."""
    return chosen(config).check(config)


def examine(config: PaperConfig) -> None:
    """Reads all data."""
    chosen(config).examine(config)


def graph(config: PaperConfig, inputs: object) -> dict[str, Artefact]:
    """Returns the report."""
    return chosen(config).graph(config, inputs)


def describe(config: PaperConfig) -> Description:
    """Returns the description of a run."""
    return chosen(config).describe(config)


PAPER = Pipeline(
    name="paper",
    config=PaperConfig,
    check=check,
    examine=examine,
    graph=graph,
    describe=describe,
)
