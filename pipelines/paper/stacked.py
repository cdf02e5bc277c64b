"""Many small nets trained at once, and what is measured of them on the way."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ebflow import objectives
from ebflow.architectures import dense
from ebflow.data.loader import Dataset, Split
from ebflow.evaluation import latent_statistics, log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing, gaussian
from ebflow.randomness import RowGenerator
from pipelines.config import ChainConfig, ObjectiveConfig, PreprocessConfig
from pipelines.paper.config import StackConfig
from pipelines.paper.stacking import Member, Stack
from pipelines.training.preprocessing import baseline, fitted

PREPROCESSINGS = {
    "whitened": PreprocessConfig(shrinkage=1e-3),
    "plain": PreprocessConfig(normalise="none"),
}
"""Preprocessing; both behind the logit."""

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "published": {},
    "centred": {"centred": True},
    "learned": {"activation": "spline"},
}
"""Options of the net."""


class Way(NamedTuple):
    """What tells nets of a stack apart.

    Attributes:
        preprocessing: A name in ``PREPROCESSINGS``.
        sign: Of the identity that linear layers start as.
        bias: The start of every offset.
        rate: The learning rate.
    """

    preprocessing: str
    sign: int
    bias: float
    rate: float


def ways(config: StackConfig) -> list[Way]:
    """Returns all nets of a stack."""
    found = product(config.preprocessings, config.starts, config.rates)
    return [Way(preprocessing, *start, rate) for preprocessing, start, rate in found]


def train(config: StackConfig, dataset: Dataset) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns what was measured, JSON-able, and log-densities of the test rows.

    Told are the configuration, the width D, the Gaussian's NLL on validation rows, and of every
    training its ``Way`` and its looks: step, mean loss since the last, validation NLL, squared
    latent mean; None where a number is not finite. The log-densities are the Gaussian's, with
    shape (rows,), and those of every net at its best look by validation; NaN without one.
    """
    chains = {
        name: fitted(ChainConfig(chain=PREPROCESSINGS[name]), dataset)
        for name in config.preprocessings
    }
    watch = _Watch(ways(config), dataset, chains)
    stack = _stack(config, watch.nets, dataset.split("train").width)
    for step, (batches, noise) in enumerate(_batches(config, dataset, chains)):
        if step in config.looks:
            watch.look(step, stack.flows())
        if step < config.steps:
            watch.losses.append(stack.train_step(batches, noise))
    reference = partial(log_probs, gaussian(baseline(dataset, PreprocessConfig())))
    measured = {
        "config": config.model_dump(mode="json"),
        "width": dataset.split("train").width,
        "gaussian": -float(reference(dataset.split("validation")).mean()),
        "trainings": watch.trainings,
    }
    return measured, {
        "gaussian": reference(dataset.split("test")),
        "nets": torch.stack(watch.best),
    }


class _Watch:
    """What is seen of nets at their looks."""

    def __init__(
        self, nets: Sequence[Way], dataset: Dataset, chains: dict[str, Preprocessing]
    ) -> None:
        self.nets, self.dataset, self.chains = nets, dataset, chains
        self.trainings = [{**way._asdict(), "looks": []} for way in nets]
        self.losses: list[Tensor] = []
        unseen = torch.full((len(dataset.split("test")),), math.nan, dtype=torch.float64)
        self.best = [unseen] * len(nets)

    def look(self, step: int, flows: Iterator[Flow]) -> None:
        """Measures all nets."""
        none = torch.full((1, len(self.nets)), math.nan)
        losses = torch.stack(self.losses) if self.losses else none
        for index, (flow, loss) in enumerate(zip(flows, losses.mean(0).tolist(), strict=True)):
            whole = flow.preprocessed(self.chains[self.nets[index].preprocessing])
            looks = self.trainings[index]["looks"]
            looks.append({"step": step, "loss": _finite(loss), **_look(whole, self.dataset)})
            if _is_best(looks):
                self.best[index] = log_probs(whole, self.dataset.split("test"))
        self.losses = []


def _stack(config: StackConfig, nets: Sequence[Way], width: int) -> Stack:
    options = ACTIVATIONS[config.activation]
    members = [
        Member(
            dense((width,), sign=way.sign, bias=way.bias, **options),
            way.rate,
            config.preprocessings.index(way.preprocessing),
        )
        for way in nets
    ]
    return Stack(members, _objective(config.objective), steps=config.steps)


def _objective(config: ObjectiveConfig) -> objectives.Objective:
    if config.name == "ml":
        return _ml
    sigma = {"sigma": config.sigma} if config.name == "dsm" else {}
    return partial(objectives.OBJECTIVES[config.name], **sigma)


def _ml(density: Any, x: Tensor, *, generator: RowGenerator) -> Tensor:  # noqa: ANN401
    """Returns −log p(x) of one net of a stack, whose log-determinants no cache may hold."""
    linear = (layer for layer in density.layers if layer.constant_jacobian)
    return density.at(x).energy - sum(layer.volume(layer.effective_weight()) for layer in linear)


def _batches(
    config: StackConfig, dataset: Dataset, chains: dict[str, Preprocessing]
) -> Iterator[tuple[Tensor, RowGenerator]]:
    """Yields for every step, and once more, a batch by every preprocessing, and the noise."""
    split, seed = dataset.split("train"), config.seed
    shuffled = split.shuffled(config.batch_size, seed=seed)
    flows = [Flow((split.width,), []).preprocessed(chain) for chain in chains.values()]
    for step in range(config.steps + 1):
        x = next(shuffled).x
        with torch.no_grad():
            found = [flow.preprocess(x, RowGenerator(seed, "dequantise", step)) for flow in flows]
        yield torch.stack(found), RowGenerator(seed, "train", step)


@torch.no_grad()
def _look(flow: Flow, dataset: Dataset) -> dict[str, float | None]:
    """Returns validation NLL and squared latent mean."""
    split = dataset.split("validation")
    latent = flow.to_latent(_rows(split))
    mean = latent_statistics(latent)["latent/mean_norm2"]
    return {"nll": _finite(-float(log_probs(flow, split).mean())), "mean_norm2": _finite(mean)}


def _rows(split: Split) -> Tensor:
    return torch.cat([batch.x for batch in split.batches(1000)])


def _is_best(looks: Sequence[dict[str, Any]]) -> bool:
    known = [look["nll"] for look in looks if look["nll"] is not None]
    return bool(known) and looks[-1]["nll"] == min(known)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
