r"""Training of a classifier with a regularizer of its input-gradients.

.. math:: \text{CE}(f(x + s\,\varepsilon), y) + \lambda(t) \, \text{mean}_b \, R(f_y, x_b + s\,
    \varepsilon_b), \qquad \varepsilon \sim N(0, I) \text{ fresh at every step}.

The noise defines the smoothed density whose score is matched; without it data of few levels have
none. λ rises linearly over a first share of training. The regularizer sees the same points as the
cross-entropy and shares its forward pass, because no layer normalizes by batch statistics.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebflow.alignment.logit import ClassLogit, accuracy
from ebflow.checkpoint import Checkpoint
from ebflow.errors import NonFinite
from ebflow.history import Event
from ebflow.loss import Schedule, cosine
from ebflow.objectives import Objective
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.training.augment import Augmentation
from pipelines.training.checkpoint_parts import flatten, unflatten
from pipelines.training.resumable import ResumableTraining, plain, state_of

PACE = 50
"""Steps between events of an epoch that is under way."""


class ClassifierTraining(ResumableTraining):
    """Creates the training of a classifier, whose steps are epochs.

    Arguments:
        network: The classifier, trained in place.
        x: Training rows in [0, 1] with shape (N, D), on the network's device.
        labels: Their classes with shape (N,).
        held: Validation rows and their classes.
        optimizer: From parameters to an optimizer.
        regularizer: R; None: cross-entropy alone.
        weight: λ.
        warmup: The first share of training, over which λ rises from 0.
        schedule: The learning-rate factor as a function of progress.
        epochs: Passes over the rows; what does not fill a batch is left out.
        batch_size: Rows of a step.
        noise: s, in the units of the rows.
        augment: What is done to rows before the noise.
        clip: The largest norm of the gradient; None: no clipping.
        watch: Further metrics of an epoch.
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
        regularizer: Objective | None = None,
        weight: float = 0.0,
        warmup: float = 0.0,
        schedule: Schedule = cosine,
        epochs: int = 50,
        batch_size: int = 128,
        noise: float = 0.0,
        augment: Augmentation | None = None,
        clip: float | None = None,
        watch: Callable[[Self], dict[str, float]] = lambda training: {},
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= batch_size <= len(x):
            raise ValueError(f"batch_size: found {batch_size}, expected 1 … {len(x)}")
        self.network, self.x, self.labels, self.held = network, x, labels, held
        self.device = x.device
        self.parameters = list(network.parameters())
        self.optimizer = optimizer(self.parameters)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.regularizer = regularizer if weight else None
        self.weight, self.warmup, self.schedule = weight, warmup, schedule
        self.epochs, self.batch_size = epochs, batch_size
        self.noise, self.augment, self.clip, self.seed = noise, augment, clip, seed
        self.watch, self.progress = watch, 0.0
        self.identity = {"rows": len(x), "seed": seed, "batch_size": batch_size}

    def run(self) -> Iterator[Event]:
        """Yields ``validate`` after every epoch; the network is then in evaluation mode.

        Its metrics are ``train/loss``, ``train/cross_entropy`` and ``train/penalty`` (means over
        the epoch's steps, nats; the penalty without its weight), ``val/accuracy``, and what
        ``watch`` gives. In a long epoch there are ``log`` events without metrics.

        Raises:
            NonFinite: at the end of an epoch with a loss that is not finite.
        """
        while not self.verdict:
            self.between()
            metrics = yield from self._epoch()
            with self.clock("validate"):
                found = accuracy(self.network.eval(), *self.held)
                metrics |= {"val/accuracy": found} | self.watch(self)
            if self.step == self.epochs:
                self.state.verdict = f"ended after {self.step} epochs"
            message = f"epoch {self.step}, validation accuracy {found:.3f}"
            yield Event("validate", self.step, metrics, text=message)

    def pack(self) -> Checkpoint:
        """Returns all that an exact resume needs."""
        tensors, groups = flatten(self.optimizer.state_dict())
        state = {"flow": {}, "training": self.identity, "progress": plain(self.state),
                 "optimizer": groups, "clock": self.clock.totals}  # fmt: skip
        return Checkpoint(self.network.state_dict(), state, optimizer=tensors)

    def unpack(self, saved: Checkpoint) -> None:
        """Restores what ``pack`` gave; the network is in evaluation mode."""
        self.network.eval().load_state_dict(saved.model)
        self.optimizer.load_state_dict(unflatten(saved.optimizer, saved.state["optimizer"]))
        self.clock.restore(saved.state["clock"])
        self.state = state_of(saved.state["progress"])
        self.progress = self.step / self.epochs

    def _epoch(self) -> Iterator[Event]:
        """Yields while it is under way; gives the means of its terms."""
        self.network.train()
        order = torch.randperm(len(self.x), generator=derive(self.seed, "epoch", self.step))
        batches = order[: len(order) // self.batch_size * self.batch_size].to(self.device)
        terms = []
        for rows in batches.split(self.batch_size):
            if terms and len(terms) % PACE == 0:
                yield Event("log", self.step, {}, text=f"epoch {self.step + 1}")
            with self.clock("step"):
                terms.append(self._step(rows, len(terms), len(batches) // self.batch_size))
        means = torch.stack(terms).mean(0)
        if not means.isfinite().all():
            raise NonFinite(
                f"loss: found {float(means[0])} in epoch {self.step + 1}, expected a finite one: "
                "lower the regularizer's weight or the learning rate, or clip gradients"
            )
        self.state.step = self.state.best_step = self.step + 1
        self.progress = self.step / self.epochs
        names = ("train/loss", "train/cross_entropy", "train/penalty")
        return dict(zip(names, means.tolist(), strict=True))

    def _step(self, rows: Tensor, index: int, count: int) -> Tensor:
        """Returns the loss and its terms, after a step."""
        self.progress = progress = (self.step + index / count) / self.epochs
        draws = derive(self.seed, "step", self.step * count + index, device=self.device)
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
        """Returns the cross-entropy and the regularizer, means over the batch."""
        if self.regularizer is None:
            return F.cross_entropy(self.network(x), labels), x.new_zeros(())
        density = ClassLogit(self.network, labels)
        penalty = self.regularizer(density, x, generator=draws).mean()
        return F.cross_entropy(density.logits, labels), penalty
