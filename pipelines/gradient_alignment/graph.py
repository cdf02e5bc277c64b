"""The study of gradient alignment, as its graph of stages.

::

    source ──> prepare ──┬─> flow (all rows) ────┬──> reference ──┬──> measure ──> align
                         ├─> flow (one a class) ─┘                │
                         └─> classify (each model) ───────────────┘

All but the last is a replicate of its own for every seed; of a scale whose flows cost too much,
data and flows are those of the first, and the flow of a class goes on from that of all rows. A
measured classifier has the baseline of its seed beside
it, and a judge of another architecture, which was trained independently.
"""

import os
from collections.abc import Iterator
from itertools import chain

import torch
from redun.scheduler import catch_all

from ebflow.errors import BadInput
from pipelines.config.source import counted, examined, opened
from pipelines.data.manifest import Manifest
from pipelines.density.graph import prepare
from pipelines.engine import Artefact, Source, Stage, own
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.tasks import FAILED, fail, gather, subgraph
from pipelines.gradient_alignment import results
from pipelines.gradient_alignment.config import AlignmentConfig, MeasureConfig
from pipelines.gradient_alignment.models import BASELINE
from pipelines.gradient_alignment.scales import SCALES, flow_config, judge, models, replicates
from pipelines.reporting import claims

STAGES = "pipelines.gradient_alignment.stages"

flow = Stage(f"{STAGES}.flow", needs=own)
reference = Stage(f"{STAGES}.reference", needs=own)
classify = Stage(f"{STAGES}.classify", needs=own)
measure = Stage(f"{STAGES}.measure", needs=own)
align = Stage(f"{STAGES}.align", data=["pipelines.reporting"])

MOST_FLOWS = 20
"""Classes up to which there is a flow a class if not told otherwise."""


def check(config: AlignmentConfig) -> Source:
    """Returns the data's source.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    data = config.data
    if data.label is None:
        raise BadInput("data.label: found None, expected the column of classes")
    if data.context is not None:
        raise BadInput(f"data.context: found {', '.join(data.context)}, expected None")
    reader = opened(data)
    counts = counted(reader, data)
    plain, shape = models(config)[0].classifier, reader.shape
    if plain.batch_size > counts.train:
        raise BadInput(
            f"data.rows: found {counts.train} training rows, expected at least the "
            f"{plain.batch_size} of a batch"
        )
    if plain.net.name != "mlp" and len(shape) not in (2, 3):
        raise BadInput(
            f"--net: found {plain.net.name} for examples of shape {shape}, expected images of "
            "shape (H, W) or (C, H, W)"
        )
    if config.gpu and "RAY_ADDRESS" not in os.environ and not torch.cuda.is_available():
        raise BadInput("--gpu: found no GPU in this machine, expected one")
    return Source(data.source, reader.digest)


def alignment(config: AlignmentConfig, source: Source) -> Artefact:
    """Returns the report, as an expression of redun. A model that fails stops no other."""
    whole = replicates(config)
    bases = [_base(one, source) for one in whole[: 1 if SCALES[config.scale].shared else None]]
    bases *= len(whole) // len(bases)
    densities = [
        reference(measuring(one), base, f"seed {one.seed}")
        for one, base in zip(whole, bases, strict=True)
    ]
    data = [prepared for prepared, *_ in bases]
    found = chain.from_iterable(map(_measured, whole, data, densities))
    return align(config, [data, densities, catch_all([*found], FAILED, fail)])


def _base(config: AlignmentConfig, source: Source) -> list[Artefact]:
    """Returns data, the flows of their classes, and that of all rows."""
    data = prepare(config.data, [source])
    whole = flow_of(config, data)
    return [data, flows(config, data, whole), whole]


def _measured(config: AlignmentConfig, data: Artefact, densities: Artefact) -> Iterator[Artefact]:
    """Yields the measurements of a seed's models, beside a reference and what is class-blind."""
    independent, whole, found = judged(config, data), measuring(config), models(config)
    assert found[0].name == BASELINE
    base = classify(found[0].classifier, [data], f"{BASELINE}, seed {config.seed}")
    for model in found:
        title, plain = f"{model.name}, seed {config.seed}", model.name == BASELINE
        measured = whole.changed(shift=model.shift, estimators=whole.estimators and plain)
        # One job where both are one training, so that it is told once.
        same = model.classifier == found[0].classifier
        trained = base if same else classify(model.classifier, [data], title)
        inputs = [data, densities, gather([trained, base, independent])]
        yield measure(measured, inputs, title)


@subgraph()
def judged(config: AlignmentConfig, data: Artefact) -> Artefact:
    """Returns the trained judge of a seed."""
    found = judge(config, Manifest.load(data.path).shape)
    return classify(found, [data], f"judge, seed {config.seed}")


@subgraph()
def flows(config: AlignmentConfig, data: Artefact, whole: Artefact | None) -> list[Artefact]:
    """Returns the trained flow of every class, or that of all rows, which these may start from."""
    classes = Manifest.load(data.path).classes
    conditional = config.reference.conditional
    if conditional is None:
        conditional = classes <= MOST_FLOWS and SCALES[config.scale].conditional
    if not conditional:
        return [whole]
    start = [whole] if SCALES[config.scale].classes else []
    return [flow_of(config, data, *start, label=label) for label in range(classes)]


def flow_of(config: AlignmentConfig, *inputs: Artefact, label: int | None = None) -> Artefact:
    """Returns the trained flow of a class; None: of all rows."""
    rows = "all" if label is None else f"class {label}"
    return flow(flow_config(config, label), [*inputs], f"{rows}, seed {config.seed}")


def measuring(config: AlignmentConfig) -> MeasureConfig:
    """Returns what is measured, and where the densities are evaluated."""
    return SCALES[config.scale].measure.changed(
        noise=config.noise, gpu=config.gpu, seed=config.seed
    )


ALIGNMENT = Pipeline(
    name="gradient-alignment",
    check=check,
    examine=lambda config: examined(config.data),
    graph=alignment,
    describe=results.describe,
    publish=claims.publish,
    metrics=results.metrics,
    conclude=claims.conclude,
    show=results.show,
)
