"""The density pipeline, as its graph of stages.

::

    source ──> prepare ──> preprocess ──> train ──> evaluate ──> report
                  │            │            ↑          ↑            ↑
                  │            └────────────┼──────────┼────────────┤
                  └─────────────────────────┴──────────┴────────────┘
"""

from pathlib import Path

from pipelines.cluster.connection import launched
from pipelines.config import DensityConfig
from pipelines.config.source import examined
from pipelines.density import results
from pipelines.density.checks import check
from pipelines.engine import Artefact, Source, of_training, own, stage
from pipelines.engine.pipeline import Pipeline

STAGES = "pipelines.density.stages"

prepare = stage(f"{STAGES}.prepare", executor="driver")
preprocess = stage(f"{STAGES}.preprocess", needs=own)
train = stage(f"{STAGES}.train", needs=of_training, follows=True)
evaluate = stage(f"{STAGES}.evaluate")
report = stage(f"{STAGES}.report", templates=[Path(__file__).with_name("report.html.j2")])


def density(config: DensityConfig, source: Source) -> tuple[Artefact, ...]:
    """Returns what the stages make, from prepared data to the report, as expressions of redun."""
    data = prepare(config.data, [source])
    preprocessed = preprocess(config.training.chain, [data])
    trained = train(config.training, [data, preprocessed])
    evaluated = evaluate(config.evaluate, [data, preprocessed, trained])
    made = data, preprocessed, trained, evaluated
    return *made, report(config, [*made])


DENSITY = Pipeline(
    name="density",
    launches=lambda config: launched(config.cluster),
    tasks=lambda config: (prepare, preprocess, train, evaluate, report),
    check=check,
    examine=lambda config: examined(config.data, config.train.dtype),
    graph=density,
    describe=results.describe,
    publish=results.publish,
    log=results.log,
    meanwhile=("pipelines.answers.models",),
    conclude=results.conclude,
    show=results.show,
)
