"""The paper's experiments, re-run: the density pipeline cell by cell, and one comparison.

::

    source ──> prepare ──> preprocess ──> train ──> measure ──┐
                     │              ├───> train ──> measure ──┼──> compare
                     │              └───> peer ───────────────┤
                     ├───> stack (many nets at once) ─────────┤
                     └───> …                                ──┘
"""

import re

from redun.scheduler import catch, catch_all

from ebflow.data.sources import open_source
from ebflow.errors import BadInput
from ebflow.fitting import FEW
from pipelines.cli.spelling import spelled
from pipelines.config import DensityConfig, EvaluateConfig, Section
from pipelines.config.source import counted, examined, opened
from pipelines.density.checks import check as check_density
from pipelines.density.graph import evaluate, prepare, preprocess, train
from pipelines.engine import ALONE, Artefact, Source, Stage, own, stage
from pipelines.engine.fanout import FAILED, diverged, fail, together
from pipelines.engine.pipeline import Pipeline
from pipelines.errors import Diverged
from pipelines.paper import comparison
from pipelines.paper.config import (
    DivergeConfig,
    FillConfig,
    ImputeConfig,
    PaperConfig,
    PeerConfig,
    StackConfig,
    StepsConfig,
)
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.experiments.cell import Cell
from pipelines.reporting import claims
from pipelines.reporting.pictures import is_picture

STAGES = "pipelines.paper.stages"

impute = stage(f"{STAGES}.impute", needs=own)
diverge = stage(f"{STAGES}.diverge")
peer = stage(f"{STAGES}.peer", needs=own)
stack = stage(f"{STAGES}.stack", needs=own)
fill = stage(f"{STAGES}.fill", needs=own)
steps = stage(f"{STAGES}.steps", needs=ALONE)
compare = stage(f"{STAGES}.compare", templates=[claims.TEMPLATE])

MEASURES: dict[type[Section], Stage] = {
    DivergeConfig: diverge,
    EvaluateConfig: evaluate,
    FillConfig: fill,
    ImputeConfig: impute,
    PeerConfig: peer,
    StackConfig: stack,
    StepsConfig: steps,
}
"""Stages that measure, by the type of their configuration."""

Sources = dict[str, Source]


def check(config: PaperConfig) -> Sources:
    """Checks every cell; returns the sources of data by their locations."""
    _check_options(config)
    placed = EXPERIMENTS[config.experiment].placed(config)
    for cell in placed:
        if cell.measure:
            _check_cell(config, cell)
    read = [c for c in placed if c.data and not isinstance(c.config, PeerConfig)]
    return {cell.data.source: _source(cell) for cell in read}


def _source(cell: Cell) -> Source:
    """Returns the source of a cell's data; errors as in ``check_density``, for the cell."""
    if isinstance(cell.config, FillConfig):
        return _table(cell)
    try:
        return check_density(cell.config if cell.measure else DensityConfig(data=cell.data))
    except BadInput as error:
        message = DATA.sub(r"--\1", spelled(str(error)))
        raise BadInput(f"{message} (in the cell {' '.join(cell.labels.values())})") from None


def _table(cell: Cell) -> Source:
    """Returns the source of a table; raises BadInput if it is none."""
    reader = opened(cell.data)
    counted(reader, cell.data)
    if reader.layout.levels is not None or len(reader.layout.shape) != 1:
        raise BadInput(
            f"--sources: found examples of shape {reader.layout.shape} in {reader.label}, "
            "expected rows of real numbers"
        )
    return Source(cell.data.source, reader.digest)


def examine(config: PaperConfig) -> None:
    """Reads the data of every cell; raises BadInput at the first thing wrong with them."""
    cells = EXPERIMENTS[config.experiment].placed(config)
    for data in {c.data.model_dump_json(): c.data for c in cells if c.data}.values():
        examined(data)


DATA = re.compile(r"--data\.(source|rows|validation|test)\b")
"""Options of the density pipeline that this one has too, without their section."""


def _check_options(config: PaperConfig) -> None:
    """Raises BadInput if an option is set that the experiment does not use."""
    uses = EXPERIMENTS[config.experiment].uses | {"experiment", "scale", "name"}
    for name, field in PaperConfig.model_fields.items():
        found = getattr(config, name)
        if name not in uses and found != field.default:
            shown = "another than the default" if isinstance(found, Section) else found
            raise BadInput(
                f"--{name}: found {shown}, which experiment {config.experiment} does not use, "
                "expected none"
            )


def _check_cell(config: PaperConfig, cell: Cell) -> None:
    """Raises BadInput if a cell does not suit the workers, or the data the experiment."""
    workers, batch = config.cluster.workers, cell.config.train.batch_size
    if batch % workers:
        raise BadInput(
            f"--cluster.workers: found {workers}, expected a divisor of the batch size {batch} of "
            f"{' '.join(cell.labels.values())}"
        )
    shape = open_source(cell.config.data.source).layout.shape
    if isinstance(cell.measure, ImputeConfig) and not is_picture(shape):
        raise BadInput(f"--source: found examples of shape {shape}, expected images")
    if config.experiment == "tables" and (len(shape) > 1 or shape[0] > FEW):
        raise BadInput(
            f"--sources: found examples of shape {shape} in {cell.labels['table']}, expected rows "
            f"of at most {FEW} columns"
        )
    colours = {"grey": 1, "colour": 3}[config.images]
    if config.experiment == "table" and (1, *shape)[-3] != colours:
        raise BadInput(
            f"--images: found {config.images} with examples of shape {shape}, expected images of "
            f"{colours} colours"
        )


def paper(config: PaperConfig, sources: Sources) -> Artefact:
    """Returns the comparison, as an expression of redun.

    A cell that fails stops no other; one that diverges is told in the table.
    """
    cells = EXPERIMENTS[config.experiment].placed(config)
    found = [catch(together(_made(cell, sources)), Diverged, diverged) for cell in cells]
    return compare(config, [catch_all(found, FAILED, fail)])


def _made(cell: Cell, sources: Sources) -> list[Artefact]:
    """Returns what the cell's stages make; what is prepared for them apart."""
    given = [prepare(cell.data, [sources[cell.data.source]])] if cell.data else []
    given = [*given, preprocess(cell.chain, given)] if cell.chain else given
    if cell.measure is None:
        return [MEASURES[type(cell.config)](cell.config, given, cell.title)]
    trained = train(cell.config.training, given, cell.title)
    seen = given if isinstance(cell.measure, EvaluateConfig) else given[:1]
    return [trained, MEASURES[type(cell.measure)](cell.measure, [*seen, trained], cell.title)]


def tasks(config: PaperConfig) -> tuple[Stage, ...]:
    """Returns the stages that an experiment's cells need, and the comparison."""
    cells = EXPERIMENTS[config.experiment].placed(config)
    before = {"data": prepare, "chain": preprocess, "measure": train}
    used = [task for name, task in before.items() if any(getattr(c, name) for c in cells)]
    measures = dict.fromkeys(MEASURES[type(cell.measure or cell.config)] for cell in cells)
    return (*used, *measures, compare)


PAPER = Pipeline(
    name="paper",
    tasks=tasks,
    check=check,
    examine=examine,
    graph=paper,
    describe=comparison.describe,
    publish=comparison.publish,
    log=comparison.log,
    conclude=comparison.conclude,
    show=comparison.show,
)
