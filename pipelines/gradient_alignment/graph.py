"""The study of gradient alignment, as its graph of stages.

::

    source ──> prepare ──┬─> flow (one a class) ──> reference ──┐
                         ├─> flow (all rows) ──> blind ─────────┼──> measure ──> align
                         └─> classify (a model and seed each) ──┘

A measured classifier has the baseline of its seed beside it, and a judge of another architecture,
which was trained independently.
"""

import os

import torch
from redun.scheduler import catch_all

from ebflow.data.manifest import Manifest
from ebflow.errors import BadInput
from pipelines.density.graph import prepare
from pipelines.density.source import counted, examined, opened
from pipelines.engine import Artefact, Source, glue, own, stage
from pipelines.engine.fanout import fail, together
from pipelines.engine.pipeline import Pipeline
from pipelines.gradient_alignment import results
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    FlowConfig,
    MeasureConfig,
    NetConfig,
)
from pipelines.gradient_alignment.models import BASELINE, Model
from pipelines.gradient_alignment.scales import SCALES, judge, models, seeds, training
from pipelines.reporting import claims

STAGES = "pipelines.gradient_alignment.stages"

flow = stage(f"{STAGES}.flow", needs=own)
reference = stage(f"{STAGES}.reference", needs=own)
blind = stage(f"{STAGES}.blind", needs=own)
classify = stage(f"{STAGES}.classify", needs=own)
measure = stage(f"{STAGES}.measure", needs=own)
align = stage(f"{STAGES}.align", templates=[claims.TEMPLATE])

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
    for model in models(config):
        if model.classifier.batch_size > counts.train:
            raise BadInput(
                f"data.rows: found {counts.train} training rows, expected at least the "
                f"{model.classifier.batch_size} of a batch"
            )
        _check_net(model.classifier.net, reader.layout.shape)
    if config.gpu and "RAY_ADDRESS" not in os.environ and not torch.cuda.is_available():
        raise BadInput("--gpu: found no GPU in this machine, expected one")
    return Source(data.source, reader.digest)


def _check_net(net: NetConfig, shape: tuple[int, ...]) -> None:
    """Raises BadInput if the classifier is not for examples of a shape."""
    if net.name != "mlp" and len(shape) not in (2, 3):
        raise BadInput(
            f"--net: found {net.name} for examples of shape {shape}, expected images of shape "
            "(H, W) or (C, H, W)"
        )


def alignment(config: AlignmentConfig, source: Source) -> Artefact:
    """Returns the report, as an expression of redun. A model that fails stops no other."""
    data = prepare(config.data, [source])
    scores = reference(measuring(config), [data, flows(config, data)])
    densities = blind(measuring(config), [data, flow(_flow(config), [data], "all")])
    independent = judged(config, data)
    found = [
        measured(config, model, data, [scores, densities], independent)
        for seed in seeds(config)
        for model in [m.seeded(seed) for m in models(config)]
    ]
    return align(config, [data, [scores, densities], catch_all(found, Exception, fail)])


@glue()
def judged(config: AlignmentConfig, data: Artefact) -> Artefact:
    """Returns the trained judge."""
    return classify(judge(config, Manifest.load(data.path).shape), [data], "judge")


@glue()
def flows(config: AlignmentConfig, data: Artefact) -> list[Artefact]:
    """Returns the trained flow of every class, or that of all rows."""
    classes = Manifest.load(data.path).classes
    conditional = config.reference.conditional
    if conditional is None:
        conditional = classes <= MOST_FLOWS and SCALES[config.scale].conditional
    if not conditional:
        return [flow(_flow(config), [data], "all")]
    return [flow(_flow(config, label), [data], f"class {label}") for label in range(classes)]


def _flow(config: AlignmentConfig, label: int | None = None) -> FlowConfig:
    """Returns the flow of a class; None: of all rows."""
    draws = config.reference.draws or SCALES[config.scale].draws
    return FlowConfig(label=label, noise=config.noise, draws=draws, training=training(config))


def measuring(config: AlignmentConfig) -> MeasureConfig:
    """Returns what is measured, and where the densities are evaluated."""
    changed = {"noise": config.noise, "gpu": config.gpu, "seed": config.seed}
    return SCALES[config.scale].measure.model_copy(update=changed)


def measured(
    config: AlignmentConfig,
    model: Model,
    data: Artefact,
    densities: list[Artefact],
    independent: Artefact,
) -> Artefact:
    """Returns the measurement of a model of a seed, beside a reference and what is class-blind."""
    seed = f"seed {model.classifier.seed}"
    title, plain = f"{model.name}, {seed}", f"{BASELINE}, {seed}"
    first = models(config)[0].seeded(model.classifier.seed)
    assert first.name == BASELINE
    whole = measuring(config)
    changed = {"shift": model.shift, "estimators": whole.estimators and model.name == BASELINE}
    settings = whole.model_copy(update=changed)
    base = classify(first.classifier, [data], plain)
    # One job where both are one training, so that it is told once.
    same = model.classifier == first.classifier
    found = [base if same else classify(model.classifier, [data], title), base, independent]
    return measure(settings, [data, *densities, together(found)], title)


ALIGNMENT = Pipeline(
    name="gradient-alignment",
    tasks=lambda config: (prepare, flow, reference, blind, classify, measure, align),
    check=check,
    examine=lambda config: examined(config.data),
    graph=alignment,
    describe=results.describe,
    publish=results.publish,
    log=results.log,
    conclude=claims.conclude,
    show=results.show,
)
