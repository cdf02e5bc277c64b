"""From a configuration to a trained classifier, and what is told of its training."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ebflow.alignment import regularizers
from ebflow.alignment.fooling import stripes, target_gradient
from ebflow.alignment.logit import ClassLogit
from ebflow.bijections.base import products
from ebflow.errors import BadInput, NonFinite
from ebflow.files import save_tensors
from ebflow.loss import cosine
from ebflow.objectives import Objective, draw_directions, taylor_cv
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.config import ClusterConfig
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.gradient_alignment.classifier_training import ClassifierTraining
from pipelines.gradient_alignment.classifiers import CLASSIFIERS
from pipelines.gradient_alignment.config import ClassifierConfig, NetConfig, RegulariserConfig
from pipelines.gradient_alignment.unit_rows import unit_rows
from pipelines.tracking import metrics_log
from pipelines.tracking.reporter import Reporter
from pipelines.training.augment import AUGMENTATIONS
from pipelines.training.loop import alone, run_with_checkpoints
from pipelines.training.schedules import falling

PROBE = 128
"""ClassifierTraining rows whose trace is watched."""

MODEL, STATE = "model.safetensors", "training.json"
DIVERGED = "diverged"


@dataclass
class Fitted:
    """A training and what it told.

    Attributes:
        net: The classifier's architecture.
        network: The classifier, trained as far as it went.
        epochs: The metrics of every epoch; those of the probe are ``probe/trace`` and
            ``probe/gradient`` (mean norm).
        diagnosis: ``collapse: …`` or ``diverged: …``; empty if neither.
        warnings: What is to be known of the settings.
    """

    net: NetConfig
    network: nn.Module
    epochs: list[dict[str, float]]
    diagnosis: str
    warnings: list[str]

    @property
    def diverged(self) -> bool:
        """Whether it ended early, in no sound network."""
        return self.diagnosis.startswith(DIVERGED)

    @property
    def outcome(self) -> dict[str, Any]:
        """What it came to, without the network."""
        return {name: getattr(self, name) for name in ("epochs", "diagnosis", "warnings")}


def network(config: NetConfig, shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """Returns the untrained classifier.

    Raises:
        BadInput: If it is not for examples of such a shape.
    """
    options = {} if config.hidden is None else {"hidden": config.hidden}
    draws = derive(seed, "classifier")
    try:
        return CLASSIFIERS[config.name](shape, classes, **options, generator=draws)
    except ValueError as error:
        raise BadInput(f"net: found {config.name} for examples of another kind: {error}") from None


def penalty(config: RegulariserConfig, shape: Sequence[int], smoothing: float) -> Objective | None:
    """Returns the regularizer; ``floor`` is that many times the trace's floor.

    A target gradient is of the logit itself, centred or not.
    """
    if config.name == "none":
        return None
    if config.name == "fool":
        return target_gradient(stripes(shape), config.size)
    function = regularizers.REGULARIZERS[config.name]
    options = config.options(function)
    if options.get("floor") is not None:
        width = torch.Size(shape).numel()
        options["floor"] *= regularizers.smallest_trace(width, smoothing)
    made = function(**options)
    return regularizers.centred(made) if config.centred else made


@products("highest")
def fit(
    config: ClassifierConfig,
    dataset: Dataset,
    work: Path,
    reporter: Reporter,
) -> Fitted:
    """Trains a classifier, with products and convolutions in full float32 throughout.

    It goes on from what an earlier call left in ``work``. A training that diverges ends there,
    with its last weights and its diagnosis; one that collapses goes on and is diagnosed.

    Arguments:
        config: Its configuration.
        dataset: Prepared data with classes.
        work: Folder of the checkpoints.
        reporter: Reports the metrics.
    """
    training = _training(config, dataset)
    diverged = ""
    try:
        place = alone(reporter, work)
        run_with_checkpoints(lambda: training, work, place, ClusterConfig().patience)
    except NonFinite as error:
        diverged = f"{DIVERGED}: {error}"
    reporter.finish()
    rows = metrics_log.curve(metrics_log.read(reporter.file), "validate")
    epochs = [row["metrics"] for row in rows]
    diagnosis = diverged or collapse(config, dataset.manifest, epochs[-1])
    return Fitted(config.net, training.network, epochs, diagnosis, warnings(config, training))


def collapse(config: ClassifierConfig, manifest: Manifest, metrics: dict[str, float]) -> str:
    """Returns the diagnosis of a mean trace below ``smallest_trace``; empty above it."""
    trace = metrics["probe/trace"]
    floor = regularizers.smallest_trace(manifest.width, config.smoothing)
    if trace >= floor:
        return ""
    return (
        f"collapse: mean trace {trace:.3g} below the floor {floor:.3g} of data smoothed by "
        f"{config.smoothing:g}; add data noise, or use a stability above 0 or a lower weight"
    )


def _training(config: ClassifierConfig, dataset: Dataset) -> ClassifierTraining:
    manifest, regularizer, device = dataset.manifest, config.regularizer, config.device
    rows = {name: dataset.split(name) for name in ("train", "validation")}
    x, held = (unit_rows(split).to(device) for split in rows.values())
    labels, known = (split.labels().to(device) for split in rows.values())
    schedules = {"cosine": cosine, "steps": falling(0.1, (0.5, 0.75))}
    augment = AUGMENTATIONS.get(config.augment)
    return ClassifierTraining(
        network(config.net, manifest.shape, manifest.classes, config.seed).to(device),
        x, labels, held=(held, known), optimizer=partial(_optimizer, config),
        regularizer=penalty(regularizer, manifest.shape, config.smoothing),
        weight=regularizer.weight, warmup=regularizer.warmup,
        schedule=schedules[config.schedule], epochs=config.epochs, batch_size=config.batch_size,
        noise=config.noise, augment=augment and augment(manifest.shape), clip=config.clip,
        watch=partial(probe, config), seed=config.seed,
    )  # fmt: skip


def _optimizer(
    config: ClassifierConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    kinds = {"adam": torch.optim.Adam, "sgd": partial(torch.optim.SGD, momentum=0.9)}
    options = {"lr": config.lr, "weight_decay": config.weight_decay}
    return kinds[config.optimizer](parameters, **options, fused=True)


def _probe(training: ClassifierTraining, noise: float) -> tuple[ClassLogit, Tensor]:
    """Returns the density at the first training rows, with the noise of training, always alike."""
    x, labels = training.x[:PROBE], training.labels[:PROBE]
    draws = derive(0, "probe", device=x.device)
    x = torch.add(x, normal(x.shape, x, draws), alpha=noise) if noise else x
    return ClassLogit(training.network, labels), x


def probe(config: ClassifierConfig, training: ClassifierTraining) -> dict[str, float]:
    """Returns the mean trace and the mean norm of the gradient, by a low-variance estimate."""
    density, x = _probe(training, config.noise)
    draws = derive(0, "probe", "directions", device=x.device)
    u = draw_directions("rademacher", 4, x, draws)
    score, traces = taylor_cv(density, x, u, 0.03)
    return {
        "probe/trace": float(traces.detach().mean()),
        "probe/gradient": float(score.detach().norm(dim=1).mean()),
    }


def warnings(config: ClassifierConfig, training: ClassifierTraining) -> list[str]:
    """Returns what is to be known of the settings, judged by the trained network where it is."""
    regularizer, found = config.regularizer, []
    if regularizer.name not in ("score", "anti") or regularizer.estimator == "exact":
        return found
    hidden = regularizers.disguise(**regularizer.options(regularizers.disguise))
    if regularizer.name == "score" and regularizer.estimator == "taylor" and hidden > 1:
        found.append(
            f"a gradient-norm penalty in disguise: 8 mu / (K sigma²) = {hidden:.3g} > 1; expected "
            "taylor_cv, stability 0, or a larger step"
        )
    density, x = _probe(training, config.noise)
    draws = derive(0, "probe", "noise", device=x.device)
    options = regularizer.options(regularizers.signal_to_noise)
    ratio = regularizers.signal_to_noise(density, x, generator=draws, **options)
    if ratio < 1:
        found.append(
            f"noise swamps the trace: |mean| / deviation = {ratio:.2g} of one estimate; expected "
            "taylor_cv, more slices, or a larger step"
        )
    return found


def save(folder: Path, fitted: Fitted) -> None:
    """Writes the weights, the architecture and the outcome."""
    tensors = {k: t.detach().cpu() for k, t in fitted.network.state_dict().items()}
    save_tensors(tensors, folder / MODEL)
    (folder / STATE).write_text(
        json.dumps({"net": fitted.net.model_dump(), **fitted.outcome}, indent=1) + "\n"
    )


def load(folder: Path, shape: Sequence[int], classes: int) -> Fitted:
    """Returns the training of a folder, its classifier in evaluation mode."""
    stored = json.loads((folder / STATE).read_text())
    net = NetConfig.model_validate(stored.pop("net"))
    found = network(net, shape, classes, 0)
    found.load_state_dict(load_file(folder / MODEL))
    return Fitted(net, found.eval().requires_grad_(False), **stored)
