"""The study of gradient alignment, as its graph of stages.

::

    source ──> prepare ──┬─> flow (one a class) ──> reference ──┐
                         ├─> flow (all rows) ──> blind ─────────┼──> measure ──> align
                         └─> classify (a model and seed each) ──┘

A measured classifier has the baseline of its seed and an independently trained judge beside it.
"""

__all__ = ["ALIGNMENT", "alignment", "blind", "check", "classify", "flow", "flows",
           "measuring", "reference"]  # fmt: skip

import os

import torch
from redun import task
from redun.scheduler import JobInfo, catch_all

from ebflow.data.manifest import Manifest
from ebflow.errors import BadInput
from pipelines.density.graph import prepare
from pipelines.density.source import counted, examined, opened
from pipelines.engine import JOB_INFO, NAMESPACE, TITLED, Artefact, Source, own, run_stage
from pipelines.engine.digests import source_digest
from pipelines.engine.fanout import fail, together
from pipelines.engine.pipeline import Pipeline
from pipelines.gradient_alignment import results
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    ClassifierConfig,
    FlowConfig,
    MeasureConfig,
    NetConfig,
)
from pipelines.gradient_alignment.models import (
    BASELINE,
    SCALES,
    Model,
    judge,
    models,
    seeds,
    training,
)
from pipelines.reporting import claims, pages

redun_namespace = NAMESPACE

STAGES = "pipelines.gradient_alignment.stages"

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
    data = prepare(config.data, source)
    scores = reference(measuring(config), data, flows(config, data))
    densities = blind(measuring(config), data, flow(_flow(config), data, "all"))
    independent = classify(judge(config), data, "judge")
    found = [
        measured(config, model, data, [scores, densities], independent)
        for seed in range(seeds(config))
        for model in [m.seeded(seed) for m in models(config)]
    ]
    return align(config, data, [scores, densities], catch_all(found, Exception, fail))


@task(cache=False)
def flows(config: AlignmentConfig, data: Artefact) -> list[Artefact]:
    """Returns the trained flow of every class, or that of all rows."""
    classes = Manifest.load(data.path).classes
    conditional = config.reference.conditional
    if conditional is None:
        conditional = classes <= MOST_FLOWS and SCALES[config.scale].conditional
    if not conditional:
        return [flow(_flow(config), data, "all")]
    return [flow(_flow(config, label), data, f"class {label}") for label in range(classes)]


def _flow(config: AlignmentConfig, label: int | None = None) -> FlowConfig:
    """Returns the flow of a class; None: of all rows."""
    draws = config.reference.draws or SCALES[config.scale].draws
    return FlowConfig(label=label, noise=config.noise, draws=draws, training=training(config))


def measuring(config: AlignmentConfig) -> MeasureConfig:
    """Returns what is measured, and where the densities are evaluated."""
    changed = {"noise": config.noise, "gpu": config.gpu}
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
    asked = whole.model_copy(update=changed)
    base = classify(first.classifier, data, plain)
    # One job where both are one training, so that it is told once.
    same = model.classifier == first.classifier
    found = [base if same else classify(model.classifier, data, title), base, independent]
    return measure(asked, model.classifier.net, data, densities, together(found), title)


@task(
    executor="ray",
    needs=own,
    hash_includes=[source_digest(f"{STAGES}.flow")],
    config_args=TITLED,
)
def flow(config: FlowConfig, data: Artefact, title: str = "", job: JobInfo = JOB_INFO) -> Artefact:
    """Trains the reference of a class."""
    return run_stage(f"{STAGES}.flow", job, config, data.path, title=title)


@task(
    executor="ray",
    needs=own,
    hash_includes=[source_digest(f"{STAGES}.reference")],
)
def reference(
    config: MeasureConfig, data: Artefact, trained: list[Artefact], job: JobInfo = JOB_INFO
) -> Artefact:
    """Evaluates the reference flows at test points."""
    return run_stage(
        f"{STAGES}.reference",
        job,
        config,
        data.path,
        [a.path for a in trained],
    )


@task(
    executor="ray",
    needs=own,
    hash_includes=[source_digest(f"{STAGES}.blind")],
)
def blind(
    config: MeasureConfig, data: Artefact, trained: Artefact, job: JobInfo = JOB_INFO
) -> Artefact:
    """Makes the class-blind densities."""
    return run_stage(f"{STAGES}.blind", job, config, data.path, trained.path)


@task(
    executor="ray",
    needs=own,
    hash_includes=[source_digest(f"{STAGES}.classify")],
    config_args=TITLED,
)
def classify(
    config: ClassifierConfig, data: Artefact, title: str = "", job: JobInfo = JOB_INFO
) -> Artefact:
    """Trains a classifier."""
    return run_stage(f"{STAGES}.classify", job, config, data.path, title=title)


@task(
    executor="ray",
    needs=own,
    hash_includes=[source_digest(f"{STAGES}.measure")],
    config_args=TITLED,
)
def measure(
    config: MeasureConfig,
    net: NetConfig,
    data: Artefact,
    densities: list[Artefact],
    trained: list[Artefact],
    title: str = "",
    job: JobInfo = JOB_INFO,
) -> Artefact:
    """Measures a classifier."""
    scores, shared = (artefact.path for artefact in densities)
    paths = [artefact.path for artefact in trained]
    return run_stage(
        f"{STAGES}.measure",
        job,
        config,
        net,
        data.path,
        scores,
        shared,
        paths,
        title=title,
    )


@task(
    executor="ray",
    hash_includes=[
        source_digest(f"{STAGES}.align"),
        pages.digest(claims.TEMPLATE),
    ],
)
def align(
    config: AlignmentConfig,
    data: Artefact,
    densities: list[Artefact],
    found: list[Artefact],
    job: JobInfo = JOB_INFO,
) -> Artefact:
    """Makes the table of models, the claims, the figures and the page."""
    told, paths = ([artefact.path for artefact in part] for part in (densities, found))
    return run_stage(f"{STAGES}.align", job, config, data.path, told, paths)


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
