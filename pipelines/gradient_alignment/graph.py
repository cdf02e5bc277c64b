"""The graph of the gradient-alignment study.

::

    source ──> prepare ──┬─> flow (all rows) ────┬──> reference ──┬──> align
                         ├─> flow (each class) ──┤                │
                         └─> classify (each model) ──> measure ───┘

Every seed has all stages but the last. Without a reference there are no flows. A classifier is
measured together with the baseline of its seed and an independently trained judge.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ebflow.errors import BadInput
from pipelines.config.source import counted, opened
from pipelines.data.manifest import Manifest
from pipelines.data.prepare import check_data
from pipelines.density.graph import prepare
from pipelines.engine.graphs import all_or_fail, subgraph
from pipelines.engine.pipeline import Description, Pipeline
from pipelines.engine.stages import Artefact, Source, Stage
from pipelines.gradient_alignment import classify as classify_rows
from pipelines.gradient_alignment import models
from pipelines.gradient_alignment.augment import augmentation
from pipelines.gradient_alignment.config import AlignmentConfig

PACKAGE = "pipelines.gradient_alignment"

flow = Stage(f"{PACKAGE}.flow", needs=lambda config: config.training.needs)
reference = Stage(f"{PACKAGE}.reference")
classify = Stage(f"{PACKAGE}.classify")
measure = Stage(f"{PACKAGE}.measure")
align = Stage(f"{PACKAGE}.align")


def check(config: AlignmentConfig) -> Source:
    """Returns the data's source; raises BadInput for data or options that the study cannot use."""
    data = config.data
    if data.label is None:
        raise BadInput(option="--data.label", found="None", expected="the column of classes")
    if data.context is not None:
        raise BadInput(option="--data.context", found=", ".join(data.context), expected="None")
    reader = opened(data)
    counts = counted(reader, data)
    plain = models.models(config)[models.BASELINE].classifier
    if plain.batch_size > counts.train:
        raise BadInput(
            option="--data.rows",
            found=f"{counts.train} training rows",
            expected=f"at least the {plain.batch_size} of a batch",
        )
    augmentation(plain.augment, reader.shape)
    for network in (plain.network, models.judge(config, reader.shape).network):
        classify_rows.untrained(network, reader.shape, 2, 0)
    return Source(data.source, reader.digest)


def alignment(config: AlignmentConfig, source: Source) -> dict[str, Artefact]:
    """Returns the report, as expressions of redun. A model that fails stops no other."""
    data, densities, measured = [], [], []
    for one in models.replicates(config):
        rows = prepare(one.data, source=source)
        inputs = {"data": rows, "flows": [], "all_rows": []}
        data.append(rows)
        if one.reference.kind == "flows":
            inputs |= {"flows": flows(one, rows), "all_rows": [_flow(one, rows)]}
            title = f"seed {one.seed}"
            densities.append(reference(models.measuring(one), **inputs, title=title))
        measured += _measured(one, inputs)
    finished = all_or_fail(measured)
    return {"report": align(config, data=data, densities=densities, measured=finished)}


def _flow(config: AlignmentConfig, data: Artefact, label: int | None = None) -> Artefact:
    """Returns the trained flow of a class; None: of all rows."""
    rows = "all" if label is None else f"class {label}"
    return flow(models.flow_config(config, label), data=data, title=f"{rows}, seed {config.seed}")


def _measured(config: AlignmentConfig, inputs: Mapping[str, Any]) -> Iterator[Artefact]:
    """Yields the measurements of the models of a seed, from its data and flows."""
    data, settings = inputs["data"], models.measuring(config)
    independent = judged(config, data)
    some = models.models(config)
    plain = some[models.BASELINE].classifier
    base = classify(plain, data=data, title=f"{models.BASELINE}, seed {config.seed}")
    for name, model in some.items():
        title = f"{name}, seed {config.seed}"
        # A shifted model is the baseline's training, which has one job and one title.
        same = model.classifier == plain
        trained = base if same else classify(model.classifier, data=data, title=title)
        networks = {"trained": trained, "baseline": base, "judge": independent}
        shifted = settings.changed(shift=model.shift, brief=model.cell is not None)
        yield measure(shifted, **inputs, **networks, title=title)


@subgraph()
def judged(config: AlignmentConfig, data: Artefact) -> Artefact:
    """Returns the trained judge of a seed."""
    judging = models.judge(config, Manifest.load(data.path).shape)
    return classify(judging, data=data, title=f"judge, seed {config.seed}")


@subgraph()
def flows(config: AlignmentConfig, data: Artefact) -> list[Artefact]:
    """Returns the trained flow of every class."""
    return [_flow(config, data, label) for label in range(Manifest.load(data.path).classes)]


def describe(config: AlignmentConfig) -> Description:
    """Returns the data and the scale, as MLflow shows them."""
    data = Path(config.data.source).stem
    return Description(
        parts=(data, f"models of scale {config.scale}"),
        about=f"Input-gradients of classifiers of **{data}**, with and without regularizers: "
        "their logits as log-densities.",
        tags={"ebflow.data": data, "ebflow.scale": config.scale},
    )


ALIGNMENT = Pipeline(
    name="gradient-alignment",
    config=AlignmentConfig,
    check=check,
    examine=lambda config: check_data(config.data),
    graph=alignment,
    describe=describe,
)
