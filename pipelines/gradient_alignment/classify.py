r"""Trains a classifier with a regularizer of its input-gradients, and diagnoses its training.

.. math:: \text{CE}(f(x + s\,\varepsilon), y) + \lambda(t) \, \text{mean}_b \, R(f_y, x_b + s\,
    \varepsilon_b), \qquad \varepsilon \sim N(0, I) \text{ fresh at every step}.

The noise defines the smoothed density whose score is matched; data of few levels have no density
without it. The regularizer sees the same points as the cross-entropy and shares its forward pass.

Score matching needs a Hessian that is not zero almost everywhere. So every activation is
``softplus`` with β = 10, and there is no max-pooling. No layer mixes the examples of a batch,
because then :math:`\nabla_x f` would have terms across examples.

Source: Srinivas, Fleuret (2021), arXiv:2006.09128.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from ebflow.alignment import regularizers
from ebflow.alignment.logit import ClassLogit, accuracy
from ebflow.bijections.base import products
from ebflow.errors import NonFinite
from ebflow.files import save_tensors
from ebflow.loss import cosine
from ebflow.networks import SHARPNESS, perceptron, started
from ebflow.objectives import Objective, draw_directions, taylor_cv
from ebflow.randomness import generator as derive
from pipelines import metrics_log
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment.config import ClassifierConfig, NetworkConfig, RegularizerConfig
from pipelines.gradient_alignment.reference import smoothed, unit_rows
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

# Files of a trained classifier.
WEIGHTS, ARCHITECTURE, OUTCOME = "model.safetensors", "network.json", "outcome.json"

DIVERGED = "diverged"  # The first word of the diagnosis of a training that became non-finite
PROBED = 128  # Training rows whose trace is watched
TERMS = ("train/loss", "train/cross_entropy", "train/penalty")  # The loss of a step and its terms

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

    ``mlp`` has two hidden layers. ``cnn`` has two 3×3 convolutions, of ``hidden`` and twice as
    many channels, each followed by average pooling, and two dense layers.
    """
    generator, hidden = derive(seed, "classifier"), config.hidden
    options = {"activation": "softplus", "generator": generator}
    if config.name == "mlp":
        return perceptron(math.prod(shape), classes, hidden=hidden, depth=2, **options)
    channels, height, width = image = tuple((1, *shape)[-3:])
    layers = [nn.Unflatten(1, image)]
    for before, after in ((channels, hidden), (hidden, 2 * hidden)):
        convolution = skip_init(nn.Conv2d, before, after, 3, padding=1)
        layers += [started(convolution, generator), nn.Softplus(SHARPNESS), nn.AvgPool2d(2)]
    inner = 2 * hidden * (height // 4) * (width // 4)
    dense = perceptron(inner, classes, hidden=4 * hidden, depth=1, **options)
    return nn.Sequential(*layers, nn.Flatten(), *dense)


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
) -> Iterator[dict[str, float]]:
    """Trains a classifier in place by Adam under a cosine; yields the metrics of every epoch.

    They are means over the epoch's steps (the penalty without its weight) and the validation
    accuracy. The trace and the norm of the gradient are means over the first training rows. The
    network is then in evaluation mode.

    Raises:
        NonFinite: At the end of an epoch with a loss that is not finite.
    """
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, lr=config.lr, fused=True)
    for epoch in range(config.epochs):
        network.train()
        losses = []
        for progress, terms in _losses(config, network, rows, regularizer, epoch):
            optimizer.param_groups[0]["lr"] = config.lr * cosine(progress)
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


def _losses(
    config: ClassifierConfig,
    network: nn.Module,
    rows: Rows,
    regularizer: Objective | None,
    epoch: int,
) -> Iterator[tuple[float, tuple[Tensor, Tensor, Tensor]]]:
    """Yields the share of training that is done, and the ``TERMS`` of an epoch's next batch."""
    added, (x, labels), size = config.regularizer, rows, config.batch_size
    steps = len(x) // size
    order = torch.randperm(len(x), generator=derive(config.seed, "epoch", epoch))
    for index, chosen in enumerate(order[: steps * size].split(size)):
        progress = (epoch + index / steps) / config.epochs
        generator = derive(config.seed, "step", epoch * steps + index)
        batch, own = smoothed(x[chosen], config.noise, generator), labels[chosen]
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
