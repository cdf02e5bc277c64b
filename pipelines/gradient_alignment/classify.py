r"""Trains a classifier with a regularizer of its input-gradients, and diagnoses its training.

.. math:: \text{CE}(f(x + s\,\varepsilon), y) + \lambda(t) \, \text{mean}_b \, R(f_y, x_b + s\,
    \varepsilon_b), \qquad \varepsilon \sim N(0, I) \text{ fresh at every step}.

The noise defines the smoothed density whose score is matched; data of few levels have no density
without it. The regularizer sees the same points as the cross-entropy and shares its forward pass.

Source: Srinivas, Fleuret (2021), arXiv:2006.09128.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ebflow.alignment import regularizers
from ebflow.alignment.classifiers import CLASSIFIERS
from ebflow.alignment.fooling import pattern_of
from ebflow.alignment.logit import ClassLogit, accuracy
from ebflow.bijections.base import products
from ebflow.errors import BadInput, NonFinite
from ebflow.files import save_tensors
from ebflow.loss import cosine
from ebflow.objectives import Objective, draw_directions, taylor_cv
from ebflow.randomness import generator as derive
from pipelines import metrics_log
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment.augment import Augmentation, augmentation
from pipelines.gradient_alignment.config import ClassifierConfig, NetworkConfig, RegularizerConfig
from pipelines.gradient_alignment.reference import smoothed, unit_rows
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

# Files of a trained classifier.
WEIGHTS, ARCHITECTURE, OUTCOME = "model.safetensors", "network.json", "outcome.json"

DIVERGED = "diverged"  # The first word of the diagnosis of a training that became non-finite
MOMENTUM = 0.9  # of gradient descent, as in the paper's code
PROBED = 128  # Training rows whose trace is watched
TERMS = ("train/loss", "train/cross_entropy", "train/penalty")  # The loss of a step and its terms


def tenths(progress: float) -> float:
    """Returns 1, a tenth after half of training, and a hundredth after three quarters."""
    return 0.1 ** ((progress >= 0.5) + (progress >= 0.75))


# Learning rates over time by name, as functions of the progress in [0, 1].
SCHEDULES = {"cosine": cosine, "steps": tenths}

Rows = tuple[Tensor, Tensor]  # Rows in [0, 1] with shape (N, D), and their classes with shape (N,)


@products("highest")
def classify(config: ClassifierConfig, data: Path, *, run: StageRun) -> None:
    """Writes the classifier and the outcome of its training.

    A training that diverges has its last weights and its diagnosis. One that collapses continues
    and is diagnosed. Products and convolutions have full float32 precision.
    """
    dataset = run.open(config, Dataset(data))
    manifest, splits = dataset.manifest, map(dataset.split, ("train", "validation"))
    network = untrained(config.network, manifest.shape, manifest.classes, config.seed)
    rows = ((unit_rows(split), split.labels()) for split in splits)
    regularizer = penalty(config.regularizer, manifest.shape, config.smoothing)
    augment = augmentation(config.augment, manifest.shape)
    epochs = train(config, network, *rows, regularizer=regularizer, augment=augment)
    trace = None
    try:
        for epoch, metrics in enumerate(epochs, 1):
            text = f"epoch {epoch}, validation accuracy {metrics['val/accuracy']:.3f}"
            share = epoch / config.epochs
            row = metrics_log.row("validate", epoch, share, metrics=metrics, text=text)
            run.reporter.log([row])
        trace = metrics["probe/trace"]
        diagnosis = _collapse(config, trace, manifest.width)
    except NonFinite as error:
        diagnosis = f"{DIVERGED}: {error}"
    run.reporter.finish()
    save(run.output, config.network, network)
    write_json(run.output / OUTCOME, {"trace": trace, "diagnosis": diagnosis})
    run.set_tags({"ebflow.verdict": diagnosis or "ended"})


def _collapse(config: ClassifierConfig, trace: float, width: int) -> str:
    """Returns the diagnosis of a mean trace below the floor of smoothed data; empty above it."""
    floor = regularizers.smallest_trace(width, config.smoothing)
    if trace >= floor:
        return ""
    return (
        f"collapse: mean trace {trace:.3g} below the floor {floor:.3g} of data smoothed by "
        f"{config.smoothing:g}; add data noise, or use a stability above 0 or a lower weight"
    )


def untrained(config: NetworkConfig, shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """Returns an untrained classifier.

    Raises:
        BadInput: If the architecture has no network of examples with this shape.
    """
    width = {} if config.hidden is None else {"hidden": config.hidden}
    generator = derive(seed, "classifier")
    try:
        return CLASSIFIERS[config.name](shape, classes, generator=generator, **width)
    except ValueError as error:
        raise BadInput(f"network {config.name}, {error}") from error


def save(folder: Path, config: NetworkConfig, trained: nn.Module) -> None:
    """Writes the weights and the architecture."""
    save_tensors(trained.state_dict(), folder / WEIGHTS)
    (folder / ARCHITECTURE).write_text(config.model_dump_json())


def load(folder: Path, shape: Sequence[int], classes: int) -> nn.Module:
    """Returns a saved classifier in evaluation mode, without gradients of its parameters."""
    config = NetworkConfig.model_validate_json((folder / ARCHITECTURE).read_text())
    loaded = untrained(config, shape, classes, 0)
    loaded.load_state_dict(load_file(folder / WEIGHTS))
    return loaded.eval().requires_grad_(False)


def penalty(config: RegularizerConfig, shape: Sequence[int], smoothing: float) -> Objective | None:
    """Returns the regularizer, with its floor in the units of the trace."""
    if config.name == "none":
        return None
    function = regularizers.REGULARIZERS[config.name]
    options = config.options(function)
    if config.name == "fool":
        options["pattern"] = pattern_of(shape)
    if options.get("floor") is not None:
        width = torch.Size(shape).numel()
        options["floor"] *= regularizers.smallest_trace(width, smoothing)
    objective = partial(function, **options)
    return regularizers.centred(objective) if config.centred else objective


def train(
    config: ClassifierConfig,
    network: nn.Module,
    rows: Rows,
    validation: Rows,
    *,
    regularizer: Objective | None = None,
    augment: Augmentation | None = None,
) -> Iterator[dict[str, float]]:
    """Trains a classifier in place; yields the metrics of every epoch.

    They are means over the epoch's steps (the penalty without its weight) and the validation
    accuracy. The trace and the norm of the gradient are means over the first training rows. The
    network is then in evaluation mode.

    Raises:
        NonFinite: At the end of an epoch with a loss that is not finite.
    """
    parameters = list(network.parameters())
    optimizer = _optimizer(config, parameters)
    for epoch in range(config.epochs):
        network.train()
        losses = []
        for progress, terms in _losses(config, network, rows, regularizer, augment, epoch):
            optimizer.param_groups[0]["lr"] = config.lr * SCHEDULES[config.schedule](progress)
            optimizer.zero_grad()
            terms[0].backward(inputs=parameters)
            if config.clip is not None:
                nn.utils.clip_grad_norm_(parameters, config.clip)
            optimizer.step()
            losses.append(torch.stack(terms).detach())
        means = _finite(torch.stack(losses).mean(0), epoch)
        yield {
            **dict(zip(TERMS, means.tolist(), strict=True)),
            "val/accuracy": accuracy(network.eval(), *validation),
            **probe(config, network, rows),
        }


def _optimizer(
    config: ClassifierConfig, parameters: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """Returns the optimizer: Adam, or gradient descent with momentum."""
    options = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=MOMENTUM, **options)
    return torch.optim.Adam(parameters, **options)


def _losses(
    config: ClassifierConfig,
    network: nn.Module,
    rows: Rows,
    regularizer: Objective | None,
    augment: Augmentation | None,
    epoch: int,
) -> Iterator[tuple[float, tuple[Tensor, Tensor, Tensor]]]:
    """Yields the share of training that is done, and the ``TERMS`` of an epoch's next batch."""
    added, (x, labels), size = config.regularizer, rows, config.batch_size
    steps = len(x) // size
    order = torch.randperm(len(x), generator=derive(config.seed, "epoch", epoch))
    for index, chosen in enumerate(order[: steps * size].split(size)):
        progress = (epoch + index / steps) / config.epochs
        step = epoch * steps + index
        generator = derive(config.seed, "step", step)
        images, own = x[chosen], labels[chosen]
        if augment is not None:
            images = augment(images, derive(config.seed, "augment", step))
        batch = smoothed(images, config.noise, generator)
        density, penalized = ClassLogit(network, own), x.new_zeros(())
        if regularizer is not None:
            penalized = regularizer(density, batch, generator=generator).mean()
        logits = network(batch) if density.logits is None else density.logits
        cross_entropy = F.cross_entropy(logits, own)
        weight = added.weight * min(1.0, progress / added.warmup if added.warmup else 1.0)
        yield progress, (cross_entropy + weight * penalized, cross_entropy, penalized)


def _finite(means: Tensor, epoch: int) -> Tensor:
    """Returns the mean ``TERMS`` of an epoch; raises NonFinite if one is not finite."""
    if not means.isfinite().all():
        raise NonFinite(
            f"loss: found {float(means[0])} in epoch {epoch + 1}, expected a finite one: "
            "lower the regularizer's weight or the learning rate, or clip gradients"
        )
    return means


def probe(config: ClassifierConfig, network: nn.Module, rows: Rows) -> dict[str, float]:
    """Returns the mean trace and the mean norm of the gradient at the first training rows."""
    x, labels = (part[:PROBED] for part in rows)
    x = smoothed(x, config.noise, derive(0, "probe"))
    u = draw_directions("rademacher", 4, x, derive(0, "probe", "directions"))
    score, traces = taylor_cv(ClassLogit(network, labels), x, u, 0.03)
    return {
        "probe/trace": float(traces.detach().mean()),
        "probe/gradient": float(score.detach().norm(dim=1).mean()),
    }
