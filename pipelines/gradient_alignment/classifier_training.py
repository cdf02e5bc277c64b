r"""The training of a classifier with a regularizer of its input-gradients.

.. math:: \text{CE}(f(x + s\,\varepsilon), y) + \lambda(t) \, \text{mean}_b \, R(f_y, x_b + s\,
    \varepsilon_b), \qquad \varepsilon \sim N(0, I) \text{ fresh at every step}.

The noise defines the smoothed density whose score is matched; data of few levels have no density
without it. The regularizer sees the same points as the cross-entropy and shares its forward pass.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebflow.alignment import regularizers
from ebflow.alignment.fooling import stripes, target_gradient
from ebflow.alignment.logit import ClassLogit, accuracy
from ebflow.checkpoint import Checkpoint
from ebflow.errors import NonFinite
from ebflow.history import Event
from ebflow.loss import cosine
from ebflow.objectives import Objective, draw_directions, taylor_cv
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment.classifiers import network
from pipelines.gradient_alignment.config import ClassifierConfig, RegularizerConfig
from pipelines.gradient_alignment.points import unit_rows
from pipelines.training.augment import AUGMENTATIONS, Augmentation
from pipelines.training.checkpoint_parts import flatten, unflatten
from pipelines.training.losses import falling
from pipelines.training.resumable import ResumableTraining, plain, state_of

PACE = 50
"""Steps between events within an epoch."""

PROBED = 128
"""Training rows whose trace is watched."""

FOOLED = 10.0
"""The length of the gradient that ``fool`` trains into the weights."""

OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": partial(torch.optim.SGD, momentum=0.9)}
SCHEDULES = {"cosine": cosine, "steps": falling(0.1, (0.5, 0.75))}

Rows = tuple[Tensor, Tensor]
"""Rows in [0, 1] with shape (N, D), and their classes with shape (N,)."""


def training_of(config: ClassifierConfig, dataset: Dataset) -> "ClassifierTraining":
    """Returns the training of a classifier on prepared data with classes."""
    manifest, device = dataset.manifest, config.device
    splits = (dataset.split(name) for name in ("train", "validation"))
    train, validation = ((unit_rows(s).to(device), s.labels().to(device)) for s in splits)
    augment = AUGMENTATIONS.get(config.augment)
    return ClassifierTraining(
        config,
        network(config.network, manifest.shape, manifest.classes, config.seed).to(device),
        train,
        validation,
        regularizer=penalty(config.regularizer, manifest.shape, config.smoothing),
        augment=augment and augment(manifest.shape),
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


class ClassifierTraining(ResumableTraining):
    """A training whose steps are epochs.

    Arguments:
        config: The configuration.
        network: The classifier, trained in place.
        train: Training rows, on the network's device.
        validation: Validation rows.
        regularizer: R; None: cross-entropy alone.
        augment: Random changes of rows before the noise.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        network: nn.Module,
        train: Rows,
        validation: Rows,
        *,
        regularizer: Objective | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.config, self.network = config, network
        (self.x, self.labels), self.validation = train, validation
        self.regularizer, self.augment = regularizer, augment
        self.device, self.progress = self.x.device, 0.0
        self.parameters = list(network.parameters())
        self.optimizer = OPTIMIZERS[config.optimizer](
            self.parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.identity = {
            "rows": len(self.x), "seed": config.seed, "batch_size": config.batch_size,
        }  # fmt: skip

    def run(self) -> Iterator[Event]:
        """Yields ``validate`` after every epoch; the network is then in evaluation mode.

        Metrics are means over the epoch's steps (the penalty without its weight), the validation
        accuracy and the probe. A long epoch also yields ``log`` events without metrics.

        Raises:
            NonFinite: At the end of an epoch with a loss that is not finite.
        """
        while not self.verdict:
            self.between()
            metrics = yield from self._epoch()
            with self.clock("validate"):
                validated = accuracy(self.network.eval(), *self.validation)
                metrics |= {"val/accuracy": validated} | self.probe()
            if self.step == self.config.epochs:
                self.state.verdict = f"ended after {self.step} epochs"
            message = f"epoch {self.step}, validation accuracy {validated:.3f}"
            yield Event("validate", self.step, metrics, text=message)

    def probe(self) -> dict[str, float]:
        """Returns the mean trace and the mean norm of the gradient at the first training rows."""
        x, labels, noise = self.x[:PROBED], self.labels[:PROBED], self.config.noise
        generator = derive(0, "probe", device=x.device)
        x = torch.add(x, normal(x.shape, x, generator), alpha=noise) if noise else x
        u = draw_directions("rademacher", 4, x, derive(0, "probe", "directions", device=x.device))
        score, traces = taylor_cv(ClassLogit(self.network, labels), x, u, 0.03)
        return {
            "probe/trace": float(traces.detach().mean()),
            "probe/gradient": float(score.detach().norm(dim=1).mean()),
        }

    def pack(self) -> Checkpoint:
        """Returns all that an exact resume needs."""
        tensors, groups = flatten(self.optimizer.state_dict())
        state = {"flow": {}, "training": self.identity, "progress": plain(self.state),
                 "optimizer": groups, "clock": self.clock.totals}  # fmt: skip
        return Checkpoint(self.network.state_dict(), state, optimizer=tensors)

    def unpack(self, saved: Checkpoint) -> None:
        """Restores what ``pack`` returned; the network is in evaluation mode."""
        self.network.eval().load_state_dict(saved.model)
        self.optimizer.load_state_dict(unflatten(saved.optimizer, saved.state["optimizer"]))
        self.clock.restore(saved.state["clock"])
        self.state = state_of(saved.state["progress"])
        self.progress = self.step / self.config.epochs

    def _epoch(self) -> Iterator[Event]:
        """Yields events within an epoch; returns the means of its terms."""
        size, epoch = self.config.batch_size, self.step
        self.network.train()
        order = torch.randperm(len(self.x), generator=derive(self.config.seed, "epoch", epoch))
        batches = order[: len(order) // size * size].to(self.device).split(size)
        terms = []
        for index, rows in enumerate(batches):
            if index and index % PACE == 0:
                yield Event("log", epoch, {}, text=f"epoch {epoch + 1}")
            with self.clock("step"):
                terms.append(self._step(rows, index, len(batches)))
        means = torch.stack(terms).mean(0)
        if not means.isfinite().all():
            raise NonFinite(
                f"loss: found {float(means[0])} in epoch {epoch + 1}, expected a finite one: "
                "lower the regularizer's weight or the learning rate, or clip gradients"
            )
        self.state.step = self.state.best_step = epoch + 1
        self.progress = self.step / self.config.epochs
        names = ("train/loss", "train/cross_entropy", "train/penalty")
        return dict(zip(names, means.tolist(), strict=True))

    def _step(self, rows: Tensor, index: int, count: int) -> Tensor:
        """Returns the loss and its terms, after a step."""
        config = self.config
        self.progress = progress = (self.step + index / count) / config.epochs
        generator = derive(config.seed, "step", self.step * count + index, device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * SCHEDULES[config.schedule](progress)
        x = self._points(rows, generator)
        cross_entropy, penalty = self._terms(x, self.labels[rows], generator)
        loss = cross_entropy + self._weight(progress) * penalty
        self.optimizer.zero_grad()
        loss.backward(inputs=self.parameters)
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, config.clip)
        self.optimizer.step()
        return torch.stack([loss, cross_entropy, penalty]).detach()

    def _weight(self, progress: float) -> float:
        weight, warmup = self.config.regularizer.weight, self.config.regularizer.warmup
        return weight * min(1.0, progress / warmup) if warmup else weight

    def _points(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        x, noise = self.x[rows], self.config.noise
        if self.augment is not None:
            x = self.augment(x, generator)
        return torch.add(x, normal(x.shape, x, generator), alpha=noise) if noise else x

    def _terms(
        self, x: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Returns the cross-entropy and the regularizer, means over the batch."""
        if self.regularizer is None:
            return F.cross_entropy(self.network(x), labels), x.new_zeros(())
        density = ClassLogit(self.network, labels)
        penalty = self.regularizer(density, x, generator=generator).mean()
        return F.cross_entropy(density.logits, labels), penalty
