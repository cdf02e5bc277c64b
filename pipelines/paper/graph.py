"""The paper's experiments, re-run: the density pipeline cell by cell, and one comparison.

::

    source ──> prepare ──> preprocess ──> train ──> evaluate, measure ──┐
                     │              └───> peer ─────────────────────────┼──> compare
                     └───> …                                          ──┤
                                          steps (no data) ──────────────┘
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from ebflow.errors import BadInput
from pipelines.config.files import bad_input
from pipelines.config.source import counted, opened
from pipelines.data.prepare import check_data
from pipelines.data.reader import Reader
from pipelines.density.graph import check as check_density
from pipelines.density.graph import evaluate, prepare, preprocess, train
from pipelines.engine.graphs import gather_cells
from pipelines.engine.pipeline import Description, Pipeline
from pipelines.engine.stages import WHOLE_NODE, Artefact, Source, Stage, needs_from_config
from pipelines.paper.cell import Cell
from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig

# Stages that cells name: they fit a rival and measure it, measure a trained flow, or need no data.
STAGES: dict[str, Stage] = {
    name: Stage(f"pipelines.paper.{name}", needs=needs_from_config)
    for name in ("detect", "diverge", "fill", "formulas", "inpaint", "modes", "peer")
}
STAGES["steps"] = Stage("pipelines.paper.steps", needs=WHOLE_NODE)

# Cells depend on their data, so the stage opens the sources of the user.
compare = Stage("pipelines.paper.compare", executor="driver")

Sources = dict[str, Source]


def check(config: PaperConfig) -> Sources:
    """Checks options and every cell; returns the sources of data by their locations."""
    experiment = EXPERIMENTS[config.experiment]
    for name, field in PaperConfig.model_fields.items():
        used = name in experiment.uses | {"experiment", "scale", "name"}
        if not used and getattr(config, name) != field.default:
            problem = f"experiment {config.experiment} does not use it"
            raise BadInput(problem, option=f"--{name}", hint="Leave it out")
    try:
        cells = experiment.all_cells(config)
    except ValidationError as error:  # options that do not suit the settings of a cell
        raise bad_input(error) from None
    sources: Sources = {}
    for cell in (cell for cell in cells if cell.data):
        if not cell.stage or cell.data.source not in sources:
            sources[cell.data.source] = _source(cell, experiment.data)
    return sources


def examine(config: PaperConfig) -> None:
    """Reads the data of every cell; raises BadInput at the first thing wrong with them."""
    cells = EXPERIMENTS[config.experiment].all_cells(config)
    for cell in {c.data.model_dump_json(): c for c in cells if c.data}.values():
        with _naming(cell):
            check_data(cell.data)


def _source(cell: Cell, expected: str | None) -> Source:
    """Returns the source of a cell's data; raises BadInput if they are not those expected."""
    with _naming(cell):
        reader = opened(cell.data)
        if expected not in (None, found := _kind(reader)):
            option = "--source" if expected.endswith("images") else "--sources"
            raise BadInput(option=option, found=f"{found} ({reader.label})", expected=expected)
        if not cell.stage:
            return check_density(cell.config)
        counted(reader, cell.data)
        return Source(cell.data.source, reader.digest)


def _kind(reader: Reader) -> str:
    """Returns the kind of data, in the words of ``Experiment.data``."""
    if len(reader.shape) == 1:
        return "rows of real numbers" if reader.levels is None else "rows of levels"
    return "colour images" if (1, *reader.shape)[-3] == 3 else "grey images"


@contextmanager
def _naming(cell: Cell) -> Iterator[None]:
    """Adds a cell to errors of the density pipeline, and names the options of this one."""
    try:
        yield
    except BadInput as error:
        name = (error.option or "").removeprefix("--data.")
        option = f"--{name}" if name in PaperConfig.model_fields else error.option
        hint = f"This is the cell {cell.title}, whose other settings are the experiment's"
        hints = ". ".join(filter(None, [error.hint, hint]))
        raise replace(error, option=option, hint=hints) from None


def paper(config: PaperConfig, sources: Sources) -> dict[str, Artefact]:
    """Returns the comparison, as an expression of redun.

    A cell that fails stops no other; the table shows a divergence.
    """
    cells = EXPERIMENTS[config.experiment].all_cells(config)
    outcomes = gather_cells(stages(cell, sources) for cell in cells)
    return {"report": compare(config, outcomes=outcomes)}


def stages(cell: Cell, sources: Sources) -> dict[str, Artefact]:
    """Returns the artefacts of training and measurement."""
    inputs: dict[str, Artefact] = {}
    if cell.data:
        inputs["data"] = prepare(cell.data, source=sources[cell.data.source])
    if cell.preprocess:
        inputs["preprocessed"] = preprocess(cell.preprocess, **inputs)
    if cell.stage:
        return {"measured": STAGES[cell.stage](cell.config, **inputs, title=cell.title)}
    found = {"trained": train(cell.config.training, **inputs, title=cell.title)}
    inputs |= found
    if cell.likelihood:
        found["likelihood"] = evaluate(cell.config.evaluate, **inputs, title=cell.title)
    if cell.measure:
        stage, config = cell.measure
        found["measured"] = STAGES[stage](config, **inputs, title=cell.title)
    return found


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


EXPERIMENT = Pipeline(
    name="paper",
    config=PaperConfig,
    check=check,
    examine=examine,
    graph=paper,
    describe=describe,
)
