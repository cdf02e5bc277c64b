"""The paper's experiments, re-run: the density pipeline cell by cell, and one comparison.

::

    source ──> prepare ──> preprocess ──> train ──> measure ──┐
                     │              ├───> train ──> measure ──┼──> compare
                     │              └───> peer ───────────────┤
                     ├───> stack (many nets at once) ─────────┤
                     └───> …                                ──┘
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from ebflow.errors import BadInput
from ebflow.recipes import MOST_COLUMNS
from pipelines.config import DensityConfig, EvaluateConfig, Section, Training
from pipelines.config.files import bad_input
from pipelines.config.source import counted, examined, opened
from pipelines.data.sources import open_source
from pipelines.density.checks import check as check_density
from pipelines.density.graph import evaluate, prepare, preprocess, train
from pipelines.engine import WHOLE_NODE, Artefact, Source, Stage, needs_from_config
from pipelines.engine.pipeline import Description, Pipeline
from pipelines.engine.tasks import gather_cells
from pipelines.paper import config as configs
from pipelines.paper.config import FillConfig, PaperConfig, PeerConfig
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.experiments.cell import Cell
from pipelines.reporting.style import is_picture

MEASURES: dict[type[Section], Stage] = {
    EvaluateConfig: evaluate,
    configs.DivergeConfig: Stage("pipelines.paper.diverge"),
    FillConfig: Stage("pipelines.paper.fill", needs=needs_from_config),
    PeerConfig: Stage("pipelines.paper.peer", needs=needs_from_config),
    configs.StackConfig: Stage("pipelines.paper.stack", needs=needs_from_config),
    configs.StepsConfig: Stage("pipelines.paper.steps", needs=WHOLE_NODE),
}
"""Stages that measure, by the type of their configuration."""

compare = Stage("pipelines.paper.compare", data=["pipelines.reporting"])

Sources = dict[str, Source]


def check(config: PaperConfig) -> Sources:
    """Checks every cell; returns the sources of data by their locations."""
    _check_options(config)
    try:
        placed = EXPERIMENTS[config.experiment].all_cells(config)
    except ValidationError as error:  # options that do not suit the settings of a cell
        raise bad_input(error, Training) from None
    read = [c for c in placed if c.data and not isinstance(c.config, PeerConfig)]
    for cell in read:
        for problem in _problems(config, cell):
            raise problem
    return {cell.data.source: _source(cell) for cell in read}


def _source(cell: Cell) -> Source:
    """Returns the source of a cell's data; errors as in ``check_density``, for the cell."""
    try:
        if isinstance(cell.config, FillConfig):
            reader = opened(cell.data)
            counted(reader, cell.data)
            return Source(cell.data.source, reader.digest)
        return check_density(cell.config if cell.measure else DensityConfig(data=cell.data))
    except BadInput as error:
        raise _worded(error, cell) from None


def _worded(error: BadInput, cell: Cell) -> BadInput:
    """Returns what the density pipeline refuses, by the options that this one has."""
    option, hint = error.option or "", f"This is the cell {' '.join(cell.labels.values())}"
    if option in SHARED:
        option = option.replace("data.", "")
    elif option:
        hint += ", whose settings are the experiment's: choose other data"
    hints = ". ".join(filter(None, [error.hint, hint]))
    return replace(error, option=option or None, hint=hints)


def examine(config: PaperConfig) -> None:
    """Reads the data of every cell; raises BadInput at the first thing wrong with them."""
    cells = EXPERIMENTS[config.experiment].all_cells(config)
    for cell in {c.data.model_dump_json(): c for c in cells if c.data}.values():
        try:
            examined(cell.data)
        except BadInput as error:
            raise _worded(error, cell) from None


SHARED = ("--data.source", "--data.rows", "--data.validation", "--data.test")
"""Options of the density pipeline that this one has too, without their section."""


def _check_options(config: PaperConfig) -> None:
    """Raises BadInput if an option is set that the experiment does not use."""
    uses = EXPERIMENTS[config.experiment].uses | {"experiment", "scale", "name"}
    for name, field in PaperConfig.model_fields.items():
        found = getattr(config, name)
        if name not in uses and found != field.default:
            shown = "another than the default" if isinstance(found, Section) else found
            shown = " ".join(map(str, shown)) if isinstance(shown, tuple) else shown
            found = f"{shown}, which experiment {config.experiment} does not use"
            raise BadInput(option=f"--{name}", found=found, expected="it left out")


def _problems(config: PaperConfig, cell: Cell) -> Iterator[BadInput]:
    """Yields the data that do not suit the experiment."""
    named = " ".join(cell.labels.values())
    reader = open_source(cell.data.source)
    shape, real = reader.shape, reader.levels is None and len(reader.shape) == 1
    found = f"examples of shape {shape} in {named}"
    if config.experiment == "table" and not is_picture(shape):
        yield BadInput(option="--source", found=found, expected="images")
    if config.experiment == "tables" and (len(shape) > 1 or shape[0] > MOST_COLUMNS):
        most = f"rows of at most {MOST_COLUMNS} columns"
        yield BadInput(option="--sources", found=found, expected=most)
    if config.experiment == "missing" and not real:
        yield BadInput(option="--sources", found=found, expected="rows of real numbers")
    colours = {"grey": 1, "colour": 3}[config.images]
    if config.experiment == "table" and (1, 1, *shape)[-3] != colours:
        yield BadInput(option="--images", found=found, expected=f"images of {colours} colours")


def paper(config: PaperConfig, sources: Sources) -> dict[str, Artefact]:
    """Returns the comparison, as an expression of redun.

    A cell that fails stops no other; the table shows a divergence.
    """
    cells = EXPERIMENTS[config.experiment].all_cells(config)
    outcomes = gather_cells(_stages(cell, sources) for cell in cells)
    return {"report": compare(config, [outcomes])}


def _stages(cell: Cell, sources: Sources) -> list[Artefact]:
    """Returns the artefacts of training and measurement."""
    inputs = [prepare(cell.data, [sources[cell.data.source]])] if cell.data else []
    inputs = [*inputs, preprocess(cell.chain, inputs)] if cell.chain else inputs
    if cell.measure is None:
        return [MEASURES[type(cell.config)](cell.config, inputs, cell.title)]
    trained = train(cell.config.training, inputs, cell.title)
    read = inputs if isinstance(cell.measure, EvaluateConfig) else inputs[:1]
    return [trained, MEASURES[type(cell.measure)](cell.measure, [*read, trained], cell.title)]


def describe(config: PaperConfig) -> Description:
    """Returns experiment, scale and data."""
    experiment = EXPERIMENTS[config.experiment]
    sources = (config.source or experiment.source, *config.sources)
    data = tuple(Path(source).stem for source in sources if source)
    return Description(
        parts=(config.experiment, f"scale {config.scale}", *data),
        about=f"Experiment **{config.experiment}** of the paper: {experiment.about}.",
        tags={
            "ebflow.data": ", ".join(data),
            "ebflow.experiment": config.experiment,
            "ebflow.scale": config.scale,
        },
    )


PAPER = Pipeline(
    name="paper",
    config=PaperConfig,
    check=check,
    examine=examine,
    graph=paper,
    describe=describe,
)
