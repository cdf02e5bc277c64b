r"""Training of a classifier with a regulariser of its input-gradients.

.. math:: \text{CE}(f(x + s\,\varepsilon), y) + \lambda(t) \, \text{mean}_b \, R(f_y, x_b + s\,
    \varepsilon_b), \qquad \varepsilon \sim N(0, I) \text{ fresh at every step}.

The noise defines the smoothed density whose score is matched; without it data of few levels have
none. λ rises linearly over a first share of training. The regulariser sees the same points as the
cross-entropy and shares its forward pass, unless the network normalises by batch statistics: it is
then looked at with the running ones, in a pass of its own.
"""

__all__ = ["Epoch", "Training"]

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NonFinite
from ..loss import Schedule, cosine
from ..objectives import Objective
from ..randomness import generator as derive
from ..randomness import normal
from ..train import Augmentation
from .classifiers import coupled, frozen_statistics
from .logit import ClassLogit, accuracy


@dataclass(frozen=True)
class Epoch:
    """What happened in an epoch.

    Attributes:
        number: The epochs done.
        metrics: ``train/loss``, ``train/cross_entropy`` and ``train/penalty`` (means over its
            steps, nats; the penalty without its weight) and ``val/accuracy``.
    """

    number: int
    metrics: dict[str, float]


class Training:
    """Creates the training of a classifier.

    Arguments:
        network: The classifier, trained in place.
        x: Training rows in [0, 1] with shape (N, D), on the network's device.
        labels: Their classes with shape (N,).
        held: Validation rows and their classes.
        optimizer: From parameters to an optimiser.
        regulariser: R; None: cross-entropy alone.
        weight: λ.
        warmup: The first share of training, over which λ rises from 0.
        schedule: The learning-rate factor as a function of progress.
        epochs: Passes over the rows; what does not fill a batch is left out.
        batch_size: Rows of a step.
        noise: s, in the units of the rows.
        augment: What is done to rows before the noise.
        clip: The largest norm of the gradient; None: no clipping.
        seed: Where batches, noise and directions come from.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        labels: Tensor,
        *,
        held: tuple[Tensor, Tensor],
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        regulariser: Objective | None = None,
        weight: float = 0.0,
        warmup: float = 0.0,
        schedule: Schedule = cosine,
        epochs: int = 50,
        batch_size: int = 128,
        noise: float = 0.0,
        augment: Augmentation | None = None,
        clip: float | None = None,
        seed: int = 0,
    ) -> None:
        if not 1 <= batch_size <= len(x):
            raise ValueError(f"batch_size: found {batch_size}, expected 1 … {len(x)}")
        self.network, self.x, self.labels, self.held = network, x, labels, held
        self.parameters = list(network.parameters())
        self.optimizer = optimizer(self.parameters)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.regulariser = regulariser if weight else None
        self.weight, self.warmup, self.schedule = weight, warmup, schedule
        self.epochs, self.batch_size = epochs, batch_size
        self.noise, self.augment, self.clip, self.seed = noise, augment, clip, seed
        self.coupled = coupled(network)
        self.epoch = 0

    def run(self) -> Iterator[Epoch]:
        """Yields after every epoch; afterwards the network is in evaluation mode.

        Raises:
            NonFinite: at the end of an epoch with a loss that is not finite.
        """
        while self.epoch < self.epochs:
            metrics = self._epoch()
            self.epoch += 1
            yield Epoch(self.epoch, metrics | {"val/accuracy": self.validate()})

    def validate(self) -> float:
        """Returns the accuracy on the validation rows."""
        self.network.eval()
        return accuracy(self.network, *self.held)

    def state(self) -> dict[str, Any]:
        """Returns the optimiser's state; with the network's and ``epoch`` it resumes exactly."""
        return self.optimizer.state_dict()

    def resume(self, epoch: int, network: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        """Goes on behind an epoch."""
        self.epoch = epoch
        self.network.load_state_dict(network)
        self.optimizer.load_state_dict(optimizer)

    def _epoch(self) -> dict[str, float]:
        self.network.train()
        order = torch.randperm(len(self.x), generator=derive(self.seed, "epoch", self.epoch))
        batches = order.to(self.x.device).split(self.batch_size)
        batches = [rows for rows in batches if len(rows) == self.batch_size]
        terms = torch.stack(
            [self._step(rows, k, len(batches)) for k, rows in enumerate(batches)]
        ).mean(0)
        if not terms.isfinite().all():
            raise NonFinite(
                f"loss: found {float(terms[0])} in epoch {self.epoch + 1}, expected a finite one: "
                "lower the regulariser's weight or the learning rate, or clip gradients"
            )
        return dict(zip(("train/loss", "train/cross_entropy", "train/penalty"), terms.tolist(),
                        strict=True))  # fmt: skip

    def _step(self, rows: Tensor, index: int, count: int) -> Tensor:
        """Returns the loss and its terms, after a step."""
        progress = (self.epoch + index / count) / self.epochs
        draws = derive(self.seed, "step", self.epoch * count + index, device=self.x.device)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.schedule(progress)
        cross, penalty = self._terms(self._points(rows, draws), self.labels[rows], draws)
        weight = self.weight * min(1.0, progress / self.warmup) if self.warmup else self.weight
        loss = cross + weight * penalty
        self.optimizer.zero_grad()
        loss.backward(inputs=self.parameters)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return torch.stack([loss, cross, penalty]).detach()

    def _points(self, rows: Tensor, draws: torch.Generator) -> Tensor:
        x = self.x[rows]
        if self.augment is not None:
            x = self.augment(x, draws)
        return torch.add(x, normal(x.shape, x, draws), alpha=self.noise) if self.noise else x

    def _terms(self, x: Tensor, labels: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the cross-entropy and the regulariser, means over the batch."""
        if self.regulariser is None:
            return F.cross_entropy(self.network(x), labels), x.new_zeros(())
        density = ClassLogit(self.network, labels)
        with frozen_statistics(self.network):
            penalty = self.regulariser(density, x, generator=draws).mean()
        logits = self.network(x) if self.coupled else density.logits
        return F.cross_entropy(logits, labels), penalty
