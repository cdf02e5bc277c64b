"""The pipeline of a search: its stages, and how they depend on each other.

::

    source ──> prepare ──> search ──> preprocess ──> train ──> evaluate ──┐
                  │           │└────> preprocess ──> train ──> evaluate ──┼──> report
                  │           │└────> …                                 ──┘      ↑
                  └───────────┴──────────────────────────────────────────────────┘

The default and the best trials are trained again, each with several seeds. The search sees neither
the selection rows, which decide the winner, nor the test rows.
"""

from pathlib import Path

from ebflow.errors import BadInput
from pipelines.config import EvaluateConfig, Training
from pipelines.config.source import held_out
from pipelines.data.prepare import check_data
from pipelines.density.graph import check as check_density
from pipelines.density.graph import evaluate, prepare, preprocess, train
from pipelines.engine.graphs import gather_cells, subgraph
from pipelines.engine.pipeline import Description, Pipeline
from pipelines.engine.stages import Artefact, Source, Stage
from tuning.config import SearchConfig, TuneConfig
from tuning.space import parameters
from tuning.trials import load, trainings

search = Stage("tuning.search", needs={"CPU": 0}, on_driver_node=True)
report = Stage("tuning.report")

Inputs = tuple[Source, TuneConfig]  # The data, and the search with rows for selection


def check(config: TuneConfig) -> Inputs:
    """Returns the inputs of the graph; raises BadInput."""
    held = config.changed(base=held_out(config.base))
    if not parameters(held.start, held.search):
        objective = held.start.objective.name
        found = f"{' '.join(held.search.over)}, of which {objective} has no parameter"
        raise BadInput(option="--over", found=found, expected="others")
    return check_density(held.base), held


def examine(config: TuneConfig) -> None:
    """Reads the data; raises BadInput at the first thing wrong with them."""
    check_data(held_out(config.base).data)


def tune(config: TuneConfig, inputs: Inputs) -> dict[str, Artefact]:
    """Returns the artefacts by name, as expressions of redun."""
    source, held = inputs
    data = prepare(held.base.data, source=source)
    later = {name: getattr(SearchConfig(), name) for name in ("top", "seeds")}
    # Options of what follows the search are no part of its key.
    trials = search(held.changed(search=later, base={"evaluate": EvaluateConfig()}), data=data)
    return {"data": data, "search": trials, "report": again(config, held, data, trials)}


@subgraph()
def again(config: TuneConfig, held: TuneConfig, data: Artefact, trials: Artefact) -> Artefact:
    """Trains the default and the best trials again, and returns the report; all as expressions.

    A training that fails stops no other; one that diverges is part of the report.
    """
    cells = gather_cells(
        _evaluated(held, training, f"trial {number}, seed {seed}", data)
        for (number, seed), training in trainings(held, load(trials.path)).items()
    )
    return report(config, data=data, searched=trials, evaluations=cells)


def _evaluated(held: TuneConfig, training: Training, title: str, data: Artefact) -> Artefact:
    """Returns the evaluation of a training."""
    inputs = {"data": data, "preprocessed": preprocess(training.preprocess_fit, data=data)}
    inputs["trained"] = train(training, **inputs, title=title)
    return evaluate(held.base.evaluate, **inputs, title=title)


def describe(config: TuneConfig) -> Description:
    """Returns the subjects of the search, and the default."""
    start, options, data = config.start, config.search, Path(config.base.data.source).stem
    return Description(
        parts=(data, start.short_loss, f"{options.trials} trials"),
        about=f"A search over {', '.join(options.over)} on **{data}**, from: {start.method}.",
        tags={"ebflow.data": data, "ebflow.objective": start.objective.name},
    )


TUNE = Pipeline(name="tune-density", check=check, examine=examine, graph=tune, describe=describe)
