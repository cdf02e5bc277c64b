r"""Trains a classifier with a regularizer of its input-gradients, and diagnoses its training.

.. math:: \text{CE}(f(x + s\,\varepsilon), y) + \lambda(t) \, \text{mean}_b \, R(f_y, x_b + s\,
    \varepsilon_b), \qquad \varepsilon \sim N(0, I) \text{ fresh at every step}.

The noise defines the smoothed density whose score is matched; data of few levels have no density
without it. The regularizer sees the same points as the cross-entropy and shares its forward pass.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebflow.alignment import regularizers
from ebflow.alignment.fooling import stripes, target_gradient
from ebflow.alignment.logit import ClassLogit, accuracy
from ebflow.bijections.base import products
from ebflow.errors import NonFinite
from ebflow.loss import cosine
from ebflow.objectives import Objective, draw_directions, taylor_cv
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines import metrics_log
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment import classifiers
from pipelines.gradient_alignment.config import ClassifierConfig, RegularizerConfig
from pipelines.gradient_alignment.reference import unit_rows
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

PROBED = 128
"""Training rows whose trace is watched."""

FOOLED = 10.0
"""The length of the gradient that ``fool`` trains into the weights."""

Rows = tuple[Tensor, Tensor]
"""Rows in [0, 1] with shape (N, D), and their classes with shape (N,)."""


@products("highest")
def classify(config: ClassifierConfig, data: Path, *, run: StageRun) -> None:
    """Writes the classifier and the outcome of its training.

    A training that diverges keeps its last weights and its diagnosis. One that collapses
    continues and is diagnosed. Products and convolutions have full float32 precision.
    """
    dataset = run.open(config, Dataset(data))
    manifest, splits = dataset.manifest, map(dataset.split, ("train", "validation"))
    network = classifiers.network(config.network, manifest.shape, manifest.classes, config.seed)
    rows = ((unit_rows(split), split.labels()) for split in splits)
    regularizer = penalty(config.regularizer, manifest.shape, config.smoothing)
    trace, epochs = None, train(config, network, *rows, regularizer=regularizer)
    try:
        for epoch, metrics in enumerate(epochs, 1):
            text = f"epoch {epoch}, validation accuracy {metrics['val/accuracy']:.3f}"
            share = epoch / config.epochs
            row = metrics_log.row("validate", epoch, share, metrics=metrics, text=text)
            run.reporter.log([row])
        trace = metrics["probe/trace"]
        diagnosis = _collapse(config, trace, manifest.width)
    except NonFinite as error:
        diagnosis = f"{classifiers.DIVERGED}: {error}"
    run.reporter.finish()
    classifiers.save(run.output, config.network, network)
    write_json(run.output / classifiers.OUTCOME, {"trace": trace, "diagnosis": diagnosis})
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


def penalty(config: RegularizerConfig, shape: Sequence[int], smoothing: float) -> Objective | None:
    """Returns the regularizer, with its floor in the units of the trace."""
    if config.name == "none":
        return None
    if config.name == "fool":
        return target_gradient(stripes(shape), FOOLED)
    function = regularizers.REGULARIZERS[config.name]
    options = config.options(function)
    if options.get("floor") is not None:
        width = torch.Size(shape).numel()
        options["floor"] *= regularizers.smallest_trace(width, smoothing)
    objective = function(**options)
    return regularizers.centred(objective) if config.centred else objective


def train(
    config: ClassifierConfig,
    network: nn.Module,
    rows: Rows,
    validation: Rows,
    *,
    regularizer: Objective | None = None,
) -> Iterator[dict[str, float]]:
    """Trains a classifier in place by Adam under a cosine; yields the metrics of every epoch.

    They are means over the epoch's steps (the penalty without its weight), the validation
    accuracy, and the mean trace and norm of the gradient at the first training rows. The network
    is then in evaluation mode.

    Raises:
        NonFinite: At the end of an epoch with a loss that is not finite.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
    for epoch in range(config.epochs):
        network.train()
        losses = []
        for progress, step, batch in _batches(config, epoch, rows):
            cross_entropy, penalized = _terms(config, network, batch, regularizer, step)
            loss = cross_entropy + _weight(config.regularizer, progress) * penalized
            _step(config, network, optimizer, loss, progress)
            losses.append(torch.stack([loss, cross_entropy, penalized]).detach())
        metrics = _means(losses, epoch) | {"val/accuracy": accuracy(network.eval(), *validation)}
        yield metrics | probe(config, network, rows)


def _batches(
    config: ClassifierConfig, epoch: int, rows: Rows
) -> Iterator[tuple[float, int, Rows]]:
    """Yields the share of training that is done, the step and its random rows."""
    x, labels = rows
    count = len(x) // config.batch_size
    order = torch.randperm(len(x), generator=derive(config.seed, "epoch", epoch))
    for index, chosen in enumerate(order[: count * config.batch_size].split(config.batch_size)):
        progress = (epoch + index / count) / config.epochs
        yield progress, epoch * count + index, (x[chosen], labels[chosen])


def _step(
    config: ClassifierConfig,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    progress: float,
) -> None:
    parameters = list(network.parameters())
    for group in optimizer.param_groups:
        group["lr"] = config.lr * cosine(progress)
    optimizer.zero_grad()
    loss.backward(inputs=parameters)
    if config.clip is not None:
        nn.utils.clip_grad_norm_(parameters, config.clip)
    optimizer.step()


def _means(losses: Sequence[Tensor], epoch: int) -> dict[str, float]:
    """Returns the means over the steps of an epoch; raises NonFinite if one is not finite."""
    means = torch.stack(losses).mean(0)
    if not means.isfinite().all():
        raise NonFinite(
            f"loss: found {float(means[0])} in epoch {epoch + 1}, expected a finite one: "
            "lower the regularizer's weight or the learning rate, or clip gradients"
        )
    names = ("train/loss", "train/cross_entropy", "train/penalty")
    return dict(zip(names, means.tolist(), strict=True))


def _weight(config: RegularizerConfig, progress: float) -> float:
    return config.weight * min(1.0, progress / config.warmup) if config.warmup else config.weight


def _terms(
    config: ClassifierConfig,
    network: nn.Module,
    batch: Rows,
    regularizer: Objective | None,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Returns the cross-entropy and the regularizer, means over the batch."""
    generator = derive(config.seed, "step", step)
    x, labels = _noisy(config, batch[0], generator), batch[1]
    if regularizer is None:
        return F.cross_entropy(network(x), labels), x.new_zeros(())
    density = ClassLogit(network, labels)
    penalized = regularizer(density, x, generator=generator).mean()
    return F.cross_entropy(density.logits, labels), penalized


def _noisy(config: ClassifierConfig, x: Tensor, generator: torch.Generator) -> Tensor:
    if not config.noise:
        return x
    return torch.add(x, normal(x.shape, x, generator), alpha=config.noise)


def probe(config: ClassifierConfig, network: nn.Module, rows: Rows) -> dict[str, float]:
    """Returns the mean trace and the mean norm of the gradient at the first training rows."""
    x, labels = (part[:PROBED] for part in rows)
    x = _noisy(config, x, derive(0, "probe"))
    u = draw_directions("rademacher", 4, x, derive(0, "probe", "directions"))
    score, traces = taylor_cv(ClassLogit(network, labels), x, u, 0.03)
    return {
        "probe/trace": float(traces.detach().mean()),
        "probe/gradient": float(score.detach().norm(dim=1).mean()),
    }
