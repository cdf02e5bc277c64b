"""The density pipeline: its stages, and how they depend on each other.

::

    source ──> prepare ──> preprocess ──> train ──> evaluate ──> report
                  │            │            ↑          ↑            ↑
                  │            └────────────┼──────────┼────────────┤
                  └─────────────────────────┴──────────┴────────────┘
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config import DensityConfig
from pipelines.config.source import examined
from pipelines.density.checks import check
from pipelines.engine import Artefact, Source, Stage, needs_from_config, needs_of_training
from pipelines.engine.pipeline import Description, Pipeline
from pipelines.inference import REFERENCE
from pipelines.training.nets import options

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun

EXAMPLES = 4
"""Rows of the example in the MLflow model."""

prepare = Stage("pipelines.density.prepare", executor="driver")
preprocess = Stage("pipelines.density.preprocess", needs=needs_from_config)
train = Stage("pipelines.density.train", needs=needs_of_training)
evaluate = Stage("pipelines.density.evaluate")
report = Stage("pipelines.density.report", data=["pipelines.reporting"])

Artefacts = Mapping[str, Artefact]


def density(config: DensityConfig, source: Source) -> dict[str, Artefact]:
    """Returns the stages' artefacts by name, as expressions of redun."""
    data = prepare(config.data, [source])
    preprocessed = preprocess(config.training.chain, [data])
    trained = train(config.training, [data, preprocessed])
    evaluated = evaluate(config.evaluate, [data, preprocessed, trained])
    made = {"data": data, "chain": preprocessed, "training": trained, "evaluation": evaluated}
    return {**made, "report": report(config, [*made.values()])}


def describe(config: DensityConfig) -> Description:
    """Returns loss, network and data (if the name does not have them), and the method."""
    data, network = Path(config.data.source).stem, config.model.architecture
    if depth := options(config.model).get("depth"):
        network += f"-{depth}"
    return Description(
        parts=(*([data] if data not in config.name else []), config.short_loss, network),
        about=f"An energy-based flow of **{data}**, trained by {config.method}.",
        tags={
            "ebflow.data": data,
            "ebflow.net": network,
            "ebflow.objective": config.objective.name,
            "ebflow.seed": str(config.seed),
        },
    )


def add_files(artefacts: Artefacts, folder: Path) -> None:
    """Copies the checkpoint into the folder of results."""
    shutil.copytree(artefacts["training"].path / "checkpoint", folder / "checkpoint")
    shutil.copy(artefacts["evaluation"].path / REFERENCE, folder / "checkpoint")


def log(artefacts: Artefacts, folder: Path, run: "StageRun") -> None:
    """Logs the data set, and the checkpoint as an MLflow model."""
    from pipelines.data.dataset import Dataset
    from pipelines.inference.models import Model
    from pipelines.inference.tables import examples
    from pipelines.tracking.models import log_model

    dataset = Dataset(artefacts["data"].path)
    run.log_input(dataset.manifest, "training")
    model = Model(folder.name, folder / "checkpoint")
    log_model(run, model.folder, examples(model, *next(dataset.split("test").batches(EXAMPLES))))


DENSITY = Pipeline(
    name="density",
    check=check,
    examine=lambda config: examined(config.data),
    graph=density,
    describe=describe,
    add_files=add_files,
    log=log,
)
