"""The density pipeline: its checks, its stages, and how they depend on each other.

::

    source ──> prepare ──> preprocess ──> train ──> evaluate ──> report
                  │            │            ↑          ↑            ↑
                  │            └────────────┼──────────┼────────────┤
                  └─────────────────────────┴──────────┴────────────┘

If the configuration has a rival, that is preprocessed and trained beside the first flow, and a
stage ``choose`` comes before ``evaluate``.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ebflow.errors import BadInput
from ebflow.recipes import BUDGET
from pipelines.config import ClusterConfig, DensityConfig, Model, PreprocessConfig
from pipelines.config.recipes import rival
from pipelines.config.source import counted, opened
from pipelines.data.messages import as_bad_input
from pipelines.data.prepare import check_data
from pipelines.data.reader import Reader
from pipelines.engine.pipeline import Description, Pipeline
from pipelines.engine.stages import Artefact, Source, Stage, needs_from_config, needs_of_training
from pipelines.inference import REFERENCE

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun

EXAMPLES = 4  # Rows of the example in the MLflow model

# Least margin of the logit, so that the last level is not rounded to 1.
LEAST_MARGIN = {"float32": 5e-7, "float64": 1e-15}

Problem = tuple[str, object, str]  # An option, its value, and what was expected

prepare = Stage("pipelines.data.prepare", executor="driver")
preprocess = Stage("pipelines.density.preprocess", needs=needs_from_config)
train = Stage("pipelines.density.train", needs=needs_of_training)
choose = Stage("pipelines.density.choose")
evaluate = Stage("pipelines.density.evaluate")
report = Stage("pipelines.density.report")

Artefacts = Mapping[str, Artefact]


def density(config: DensityConfig, source: Source) -> dict[str, Artefact]:
    """Returns the stages' artefacts by name, as expressions of redun."""
    inputs = {"data": prepare(config.data, source=source)}
    inputs["preprocessed"] = preprocess(config.training.preprocess_fit, **inputs)
    inputs["trained"] = train(config.training, **inputs)
    if config.rival:
        inputs["trained"] = _better(config, inputs)
    inputs["evaluated"] = evaluate(config.evaluate, **inputs)
    return {**inputs, "report": report(config, **inputs)}


def _better(config: DensityConfig, inputs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Returns the better training: the first, or that of the rival, which this adds."""
    other, title = rival(config), f"rival {config.rival}"
    own = {"data": inputs["data"]}
    own["preprocessed"] = preprocess(other.preprocess_fit, title=title, **own)
    second = train(other, title=title, **own)
    pair = {"first": inputs["trained"], "second": second}
    return choose(config.evaluate, data=inputs["data"], **pair)


def check(config: DensityConfig) -> Source:
    """Returns the data's source; checks the configuration with the data and this machine.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    reader = opened(config.data)
    rows = counted(reader, config.data).train
    of_data = chain(_of_rows(config, reader, rows), _of_levels(config, reader.levels))
    for option, found, expected in chain(of_data, _of_gpus(config.cluster)):
        raise BadInput(option=option, found=found, expected=expected)
    _check_bounds(config.preprocess, reader.features)
    _check_model(config.model, reader)
    return Source(config.data.source, reader.digest)


def _of_rows(config: DensityConfig, reader: Reader, rows: int) -> Iterator[Problem]:
    """Yields options that do not suit the data and their number of training rows."""
    preprocess, width = config.preprocess, reader.width
    batch, augment = config.train.batch_size, config.train.augment
    size = rows * width * np.dtype(reader.dtype).itemsize
    if batch > rows:
        most = f"at most {rows} (the training rows of {reader.label})"
        yield "--train.batch-size", batch, most
    if config.data.missing == "impute" and size > BUDGET and reader.incomplete.any():
        found = f"impute with {size} bytes of training rows"
        remedy = "use drop, fewer --data.rows or --data.columns"
        yield "--data.missing", found, f"at most {BUDGET}, which are held in memory: {remedy}"
    if augment != "none" and len(reader.shape) not in (2, 3):
        found = f"{augment} for examples of shape {reader.shape}"
        yield "--train.augment", found, "images of shape (H, W) or (C, H, W)"
    if preprocess.normalize == "whiten" and preprocess.shrinkage == 0 and rows <= width:
        found = f"0 with {rows} training rows of {width} features, whose covariance is singular"
        yield "--preprocess.shrinkage", found, "above 0"


def _of_levels(config: DensityConfig, levels: int | None) -> Iterator[Problem]:
    """Yields options that are not for integer data; and a margin that is rounded away."""
    if levels is None:
        return
    preprocess, train, data = config.preprocess, config.train, f"data of {levels} integer levels"
    if train.noise:
        yield "--train.noise", f"{train.noise:g} for {data}", "0"
    for name in ("grids", "tails", "bounds"):
        if value := getattr(preprocess, name):
            yield f"--preprocess.{name}", f"{value} for {data}", "columns of real numbers"
    least = LEAST_MARGIN[train.dtype]
    if preprocess.logit is not None and preprocess.logit < least:
        found = f"{preprocess.logit:g}, which {train.dtype} rounds away"
        yield "--preprocess.logit", found, f"at least {least:g}"


def _check_bounds(preprocess: PreprocessConfig, columns: Sequence[str]) -> None:
    """Raises BadInput if a known bound is of no column, or the lower one is not below."""
    if not preprocess.bounds:
        return
    from ebflow.fit_settings import bounds_by_index
    from ebflow.tables import Columns

    with as_bad_input():
        table = Columns.of_numbers(columns)
        bounds_by_index(preprocess.bounds, table, None, "--preprocess.bounds")


def _of_gpus(config: ClusterConfig) -> Iterator[Problem]:
    """Yields the option if this machine lacks GPUs; a cluster grants its own."""
    if not config.gpu or "RAY_ADDRESS" in os.environ:
        return
    import torch

    found = torch.cuda.device_count()
    if found * int(1 / config.gpu) < config.limits[0]:
        expected = f"{config.gpu:g} for each of --cluster.workers = {config.workers}"
        yield "--cluster.gpu", f"{found} GPUs in this machine", expected


def _check_model(model: Model, reader: Reader) -> None:
    """Raises BadInput if the architecture is not for such data."""
    if model.fits_every_shape:
        return
    import torch

    from ebflow.randomness import generator
    from pipelines.training.flow_training import build_flow

    options = {"generator": generator(0, "check"), "dtype": torch.float32}
    if model.architecture == "pixelcnn":
        options["values"] = reader.levels
    build_flow(model, reader.shape, context=reader.context_width, **options)


def describe(config: DensityConfig) -> Description:
    """Returns data, loss and network, and the method."""
    data, network = Path(config.data.source).stem, config.model.architecture
    if depth := config.model.options.get("depth"):
        network += f"-{depth}"
    method = config.method
    if config.rival:
        network, method = (f"{one} or {config.rival}" for one in (network, method))
    return Description(
        parts=(data, config.short_loss, network),
        about=f"An energy-based flow of **{data}**, trained by {method}.",
        tags={
            "ebflow.data": data,
            "ebflow.network": network,
            "ebflow.objective": config.objective.name,
            "ebflow.seed": str(config.seed),
        },
    )


def add_files(artefacts: Artefacts, folder: Path) -> None:
    """Copies the checkpoint into the folder of results."""
    shutil.copytree(artefacts["trained"].path / "checkpoint", folder / "checkpoint")
    shutil.copy(artefacts["evaluated"].path / REFERENCE, folder / "checkpoint")


def log(artefacts: Artefacts, folder: Path, run: "StageRun") -> None:
    """Logs the data set, and the checkpoint as an MLflow model."""
    from pipelines.data.dataset import Dataset
    from pipelines.inference.models import load
    from pipelines.inference.tables import examples
    from pipelines.tracking.models import log_model

    dataset = Dataset(artefacts["data"].path)
    run.log_input(dataset.manifest, "training")
    rows = next(dataset.split("test").batches(EXAMPLES))
    log_model(run, folder / "checkpoint", examples(load(str(folder)), *rows))


DENSITY = Pipeline(
    name="density",
    check=check,
    examine=lambda config: check_data(config.data),
    graph=density,
    describe=describe,
    add_files=add_files,
    log=log,
)
