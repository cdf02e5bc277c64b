r"""Trains a classifier with a regularizer of its input-gradients, and diagnoses its training.

.. math:: \text{CE}(f(x + s\,\varepsilon), y) + \lambda(t) \, \text{mean}_b \, R(f_y, x_b + s\,
    \varepsilon_b), \qquad \varepsilon \sim N(0, I) \text{ fresh at every step}.

The noise defines the smoothed density whose score is matched; data of few levels have no density
without it. The regularizer sees the same points as the cross-entropy and shares its forward pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebflow.alignment import regularizers
from ebflow.alignment.fooling import stripes, target_gradient
from ebflow.alignment.logit import ClassLogit, accuracy
from ebflow.bijections.base import products
from ebflow.checkpoint import Checkpoint
from ebflow.errors import NonFinite
from ebflow.history import Event
from ebflow.loss import cosine
from ebflow.objectives import Objective, draw_directions, taylor_cv
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.config import ClusterConfig
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment import classifiers
from pipelines.gradient_alignment.config import ClassifierConfig, RegularizerConfig
from pipelines.gradient_alignment.reference import unit_rows
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun
from pipelines.training.loop import alone, run_with_checkpoints
from pipelines.training.resumable import ResumableTraining, flatten, state_of, unflatten

PROBED = 128
"""Training rows whose trace is watched."""

FOOLED = 10.0
"""The length of the gradient that ``fool`` trains into the weights."""

Rows = tuple[Tensor, Tensor]
"""Rows in [0, 1] with shape (N, D), and their classes with shape (N,)."""


@products("highest")
def classify(config: ClassifierConfig, data: Path, *, run: StageRun) -> None:
    """Writes the classifier and the outcome of its training; resumes from the last checkpoint.

    A training that diverges keeps its last weights and its diagnosis. One that collapses
    continues and is diagnosed. Products and convolutions have full float32 precision.
    """
    dataset = run.open(config, Dataset(data))
    manifest, splits = dataset.manifest, map(dataset.split, ("train", "validation"))
    training = ClassifierTraining(
        config,
        classifiers.network(config.network, manifest.shape, manifest.classes, config.seed),
        *((unit_rows(split), split.labels()) for split in splits),
        regularizer=penalty(config.regularizer, manifest.shape, config.smoothing),
    )
    diagnosis, place = "", alone(run.reporter, run.work)
    try:
        run_with_checkpoints(lambda: training, run.work, place, ClusterConfig().patience)
    except NonFinite as error:
        diagnosis = f"{classifiers.DIVERGED}: {error}"
    run.reporter.finish()
    trace = None if diagnosis else training.probe()["probe/trace"]
    diagnosis = diagnosis or _collapse(config, trace, manifest.width)
    classifiers.save(run.output, config.network, training.network)
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


class ClassifierTraining(ResumableTraining):
    """A training whose steps are epochs.

    Arguments:
        config: The configuration.
        network: The classifier, trained in place.
        train: Training rows.
        validation: Validation rows.
        regularizer: R; None: cross-entropy alone.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        network: nn.Module,
        train: Rows,
        validation: Rows,
        *,
        regularizer: Objective | None = None,
    ) -> None:
        super().__init__()
        self.config, self.network = config, network
        (self.x, self.labels), self.validation = train, validation
        self.regularizer = regularizer
        self.device, self.progress = self.x.device, 0.0
        self.parameters = list(network.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.lr, fused=True)
        self.identity = {
            "rows": len(self.x), "seed": config.seed, "batch_size": config.batch_size,
        }  # fmt: skip

    def run(self) -> Iterator[Event]:
        """Yields ``validate`` after every epoch; the network is then in evaluation mode.

        Metrics are means over the epoch's steps (the penalty without its weight), the validation
        accuracy and the probe.

        Raises:
            NonFinite: At the end of an epoch with a loss that is not finite.
        """
        while not self.verdict:
            self.between()
            metrics = self._epoch()
            with self.clock("validate"):
                validated = accuracy(self.network.eval(), *self.validation)
                metrics |= {"val/accuracy": validated} | self.probe()
            if self.step == self.config.epochs:
                self.state.verdict = f"ended after {self.step} epochs"
            message = f"epoch {self.step}, validation accuracy {validated:.3f}"
            yield Event("validate", self.step, metrics, text=message, share=self.progress)

    def probe(self) -> dict[str, float]:
        """Returns the mean trace and the mean norm of the gradient at the first training rows."""
        x, labels, noise = self.x[:PROBED], self.labels[:PROBED], self.config.noise
        generator = derive(0, "probe")
        x = torch.add(x, normal(x.shape, x, generator), alpha=noise) if noise else x
        u = draw_directions("rademacher", 4, x, derive(0, "probe", "directions"))
        score, traces = taylor_cv(ClassLogit(self.network, labels), x, u, 0.03)
        return {
            "probe/trace": float(traces.detach().mean()),
            "probe/gradient": float(score.detach().norm(dim=1).mean()),
        }

    def pack(self) -> Checkpoint:
        """Returns all that an exact resume needs."""
        tensors, groups = flatten(self.optimizer.state_dict())
        state = {"flow": {}, "training": self.identity, "progress": asdict(self.state),
                 "optimizer": groups, "clock": self.clock.totals}  # fmt: skip
        return Checkpoint(self.network.state_dict(), state, optimizer=tensors)

    def unpack(self, saved: Checkpoint) -> None:
        """Restores what ``pack`` returned; the network is in evaluation mode."""
        self.network.eval().load_state_dict(saved.model)
        self.optimizer.load_state_dict(unflatten(saved.optimizer, saved.state["optimizer"]))
        self.clock.restore(saved.state["clock"])
        self.state = state_of(saved.state["progress"])
        self.progress = self.step / self.config.epochs

    def _epoch(self) -> dict[str, float]:
        """Does the steps of an epoch; returns the means of the loss and its terms."""
        size, epoch = self.config.batch_size, self.step
        self.network.train()
        order = torch.randperm(len(self.x), generator=derive(self.config.seed, "epoch", epoch))
        batches = order[: len(order) // size * size].split(size)
        with self.clock("step"):
            terms = [self._step(rows, k, len(batches)) for k, rows in enumerate(batches)]
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
        generator = derive(config.seed, "step", self.step * count + index)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * cosine(progress)
        cross_entropy, penalty = self._terms(rows, generator)
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

    def _terms(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the cross-entropy and the regularizer, means over the batch."""
        x, labels, noise = self.x[rows], self.labels[rows], self.config.noise
        if noise:
            x = torch.add(x, normal(x.shape, x, generator), alpha=noise)
        if self.regularizer is None:
            return F.cross_entropy(self.network(x), labels), x.new_zeros(())
        density = ClassLogit(self.network, labels)
        penalty = self.regularizer(density, x, generator=generator).mean()
        return F.cross_entropy(density.logits, labels), penalty
