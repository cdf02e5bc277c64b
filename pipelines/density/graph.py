"""The density pipeline, as its graph of stages.

::

    source ──> prepare ──> preprocess ──> train ──> evaluate ──> report
                  │            │            ↑          ↑            ↑
                  │            └────────────┼──────────┼────────────┤
                  └─────────────────────────┴──────────┴────────────┘
"""

from pipelines.cluster.connection import launched
from pipelines.config import DensityConfig
from pipelines.config.source import examined
from pipelines.density import results
from pipelines.density.checks import check
from pipelines.engine import Artefact, Source, Stage, of_training, own
from pipelines.engine.pipeline import Pipeline

STAGES = "pipelines.density.stages"

prepare = Stage(f"{STAGES}.prepare", executor="driver")
preprocess = Stage(f"{STAGES}.preprocess", needs=own)
train = Stage(f"{STAGES}.train", needs=of_training, follows=True)
evaluate = Stage(f"{STAGES}.evaluate")
report = Stage(f"{STAGES}.report", data=["pipelines.density", "pipelines.reporting"])


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
    examine=lambda config: examined(config.data),
    graph=density,
    describe=results.describe,
    publish=results.publish,
    log=results.log,
    meanwhile=("pipelines.inference.models",),
    conclude=results.conclude,
    show=results.show,
)
