"""The paper's experiments, re-run: the density pipeline cell by cell, and one comparison.

::

    source ──> prepare ──> preprocess ──> train ──> measure ──┐
                     │              ├───> train ──> measure ──┼──> compare
                     │              └───> peer ───────────────┤
                     ├───> stack (many nets at once) ─────────┤
                     └───> …                                ──┘
"""

__all__ = ["PAPER", "paper"]

import re

from redun.scheduler import catch, catch_all
from redun.task import Task

from ebflow.data.sources import open_source
from ebflow.errors import BadInput
from ebflow.fitting import FEW
from pipelines.cli.spelling import spelled
from pipelines.config import (
    DensityConfig,
    DivergeConfig,
    EvaluateConfig,
    ImputeConfig,
    PaperConfig,
    Section,
)
from pipelines.density.checks import check as check_density
from pipelines.density.graph import evaluate, prepare, preprocess, train
from pipelines.density.source import counted, examined, opened
from pipelines.engine import ALONE, Artefact, Source, own, stage
from pipelines.engine.fanout import diverged, fail, together
from pipelines.engine.pipeline import Pipeline
from pipelines.errors import Diverged
from pipelines.paper import comparison
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.experiments.cell import Cell, PeerCell
from pipelines.paper.experiments.missing import FillCell
from pipelines.paper.experiments.phases.grid import Stacked
from pipelines.paper.experiments.runtime import Timed
from pipelines.reporting import claims
from pipelines.reporting.pictures import is_picture

STAGES = "pipelines.paper.stages"

impute = stage(f"{STAGES}.impute", needs=own)
diverge = stage(f"{STAGES}.diverge")
peer = stage(f"{STAGES}.peer", needs=own)
stack = stage(f"{STAGES}.stack", needs=own)
fill = stage(f"{STAGES}.fill", needs=own)
steps = stage(f"{STAGES}.steps", needs=ALONE)
compare = stage(f"{STAGES}.compare", templates=[comparison.TEMPLATE, claims.TEMPLATE])

MEASURES: dict[type[Section], Task] = {
    DivergeConfig: diverge,
    EvaluateConfig: evaluate,
    ImputeConfig: impute,
}
"""Stages that measure a trained flow, by the type of their configuration."""

Sources = dict[str, Source]


def check(config: PaperConfig) -> Sources:
    """Checks every cell; returns the sources of data by their locations."""
    _check_options(config)
    placed = EXPERIMENTS[config.experiment].placed(config)
    for cell in placed:
        if isinstance(cell, Cell):
            _check_cell(config, cell)
    read = [(c, c.config) for c in placed if isinstance(c, Cell)]
    read += [(c, c.reader) for c in placed if isinstance(c, Stacked)]
    found = {told.data.source: _source(cell, told) for cell, told in read}
    return found | {c.data.source: _table(c) for c in placed if isinstance(c, FillCell)}


def _table(cell: FillCell) -> Source:
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
    found = [
        c.config.data if isinstance(c, Cell) else c.data for c in cells if not isinstance(c, Timed)
    ]
    for data in {data.model_dump_json(): data for data in found}.values():
        examined(data)


DATA = re.compile(r"--data\.(source|rows|validation|test)\b")
"""Options of the density pipeline that this one has too, without their section."""


def _source(cell: Cell | Stacked, config: DensityConfig) -> Source:
    """Returns the source of a cell's data; errors as in ``check_density``, for the cell."""
    try:
        return check_density(config)
    except BadInput as error:
        told = DATA.sub(r"--\1", spelled(str(error)))
        raise BadInput(f"{told} (in the cell {' '.join(cell.labels.values())})") from None


def _check_options(config: PaperConfig) -> None:
    """Raises BadInput if an option is set that the experiment does not use."""
    uses = EXPERIMENTS[config.experiment].uses | {"experiment", "scale", "name"}
    for name, field in PaperConfig.model_fields.items():
        found = getattr(config, name)
        if name not in uses and found != field.default:
            raise BadInput(
                f"--{name}: found {_told(found)}, which experiment {config.experiment} does not "
                "use, expected none"
            )


def _told(value: object) -> str:
    return "another than the default" if isinstance(value, Section) else str(value)


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
    found = [catch(together(_measured(cell, sources)), Diverged, diverged) for cell in cells]
    return compare(config, [catch_all(found, Exception, fail)])


def _measured(
    cell: Cell | FillCell | PeerCell | Stacked | Timed, sources: Sources
) -> tuple[Artefact, ...]:
    """Returns what the cell's stages make; prepared data apart."""
    if isinstance(cell, Timed):
        return (steps(cell.config, title=cell.title),)
    told = cell.config.data if isinstance(cell, Cell) else cell.data
    data = prepare(told, [sources[told.source]])
    if isinstance(cell, FillCell):
        return (fill(cell.config, [data], cell.title),)
    if isinstance(cell, PeerCell):
        return (peer(cell.config, [data, preprocess(cell.front, [data])], cell.title),)
    if isinstance(cell, Stacked):
        return (stack(cell.config, [data], cell.title),)
    front = preprocess(cell.config.training.front, [data])
    trained = train(cell.config.training, [data, front], cell.title)
    measure = MEASURES[type(cell.measure)]
    given = [data, front, trained] if measure is evaluate else [data, trained]
    return trained, measure(cell.measure, given, cell.title)


def tasks(config: PaperConfig) -> tuple[Task, ...]:
    """Returns the stages that an experiment's cells need, and the comparison."""
    cells = EXPERIMENTS[config.experiment].placed(config)
    if any(isinstance(cell, Timed) for cell in cells):
        return steps, compare
    if any(isinstance(cell, Stacked) for cell in cells):
        return prepare, stack, compare
    if any(isinstance(cell, FillCell) for cell in cells):
        return prepare, fill, compare
    flows = [cell for cell in cells if isinstance(cell, Cell)]
    measures = dict.fromkeys(MEASURES[type(cell.measure)] for cell in flows)
    peers = (peer,) if len(flows) < len(cells) else ()
    return (prepare, preprocess, train, *measures, *peers, compare)


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
