"""From prepared data to many small networks that are trained at once, with their measurements.

A step of one small network is hundreds of calls of a few microseconds each. Stacked, the networks
share the calls. The numbers of each are those of a training of its own, up to rounding: networks
do not see each other, and one that becomes non-finite affects no other.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.optim.lr_scheduler import LambdaLR

from ebflow.architectures import dense
from ebflow.evaluation import latent_statistics, log_probs
from ebflow.flow import Flow
from ebflow.loss import Loss, LossModule, Progress, cosine
from ebflow.objectives import OBJECTIVES, Objective
from ebflow.preprocessing import Preprocessing, density
from ebflow.randomness import RowGenerator
from pipelines.config import PreprocessConfig, PreprocessFit
from pipelines.data.dataset import Dataset
from pipelines.paper.config import StackConfig
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import baseline, fit_preprocessing

NETS = "nets.parquet"
BATCH = 100

DECAY = 0.99
"""Decay of the averages of the weights; min(0.99, (1 + t)/(10 + t)) at update t."""

PREPROCESSINGS = {
    "whitened": PreprocessConfig(shrinkage=1e-3),
    "plain": PreprocessConfig(normalize="none"),
}
"""Preprocessing; both behind the logit."""

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "published": {},
    "centred": {"centred": True},
    "learned": {"activation": "spline"},
}
"""Options of the network."""


def stack(config: StackConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``nets.parquet``, the table of ``train``."""
    nets = train(config, run.open(config, Dataset(data)))
    nets.to_parquet(run.output / NETS)
    run.log_metrics({"study/trainings": len(nets)})


def train(config: StackConfig, dataset: Dataset) -> pd.DataFrame:
    """Returns networks of every preprocessing, start and rate, with their measurements.

    ``nll`` (nats) and ``mass`` (squared latent mean per element) are measured on validation rows
    at each look, inf if not finite. ``gaussian`` is the Gaussian's validation NLL. ``gain`` is how
    far the mean test NLL of the best look by validation is below the Gaussian's; NaN if no look
    was finite.
    """
    preprocessings = {
        name: fit_preprocessing(PreprocessFit(options=PREPROCESSINGS[name]), dataset)
        for name in config.preprocessings
    }
    gaussian = partial(log_probs, density(baseline(dataset, PreprocessConfig())))
    shared = {
        **config.model_dump(include={"part", "activation", "seed"}),
        "objective": config.objective_label,
        "gaussian": -float(gaussian(dataset.split("validation")).mean()),
    }
    test, shape = gaussian(dataset.split("test")), (dataset.split("train").width,)
    nets, members = [], []
    for name, (sign, bias), rate in product(preprocessings, config.starts, config.rates):
        net = {"preprocessing": name, "start": start_name(sign, bias), "rate": rate}
        nets.append({**shared, **net, "nll": [], "mass": [], "gain": math.nan})
        flow = dense(shape, sign=sign, bias=bias, **ACTIVATIONS[config.activation])
        members.append(Member(flow, rate, config.preprocessings.index(name)))
    trained = Stack(members, _objective(config), steps=config.steps)
    for step, (batches, noise) in enumerate(_batches(config, dataset, preprocessings.values())):
        if step in config.looks:
            for net, flow in zip(nets, trained.flows(), strict=True):
                _look(net, flow.preprocessed(preprocessings[net["preprocessing"]]), dataset, test)
        if step < config.steps:
            trained.train_step(batches, noise)
    return pd.DataFrame(nets)


def start_name(sign: int, bias: float) -> str:
    """Returns the name of a start: the sign of the identity, and every offset."""
    return f"{sign:+d}, {bias:g}"


def _objective(config: StackConfig) -> Objective:
    if config.objective.name == "ml":
        return _ml
    return partial(OBJECTIVES[config.objective.name], **config.objective.arguments)


def _ml(density: Any, x: Tensor, *, generator: RowGenerator) -> Tensor:  # noqa: ANN401
    """Returns −log p(x) without the cache of log-determinants, which would mix the networks."""
    linear = (layer for layer in density.layers if layer.constant_jacobian)
    return density.at(x).energy - sum(layer.volume(layer.weight) for layer in linear)


def _batches(
    config: StackConfig, dataset: Dataset, preprocessings: Iterable[Preprocessing]
) -> Iterator[tuple[Tensor, RowGenerator]]:
    """Yields a batch by every preprocessing, and the noise, ``steps`` + 1 times."""
    split, seed = dataset.split("train"), config.seed
    shuffled = split.shuffled(BATCH, seed=seed)
    flows = [Flow((split.width,), []).preprocessed(one) for one in preprocessings]
    for step in range(config.steps + 1):
        x = next(shuffled).x
        with torch.no_grad():  # a generator for each flow: its calls are counted
            batches = [
                flow.preprocess(x, generator=RowGenerator(seed, "dequantize", step))
                for flow in flows
            ]
        yield torch.stack(batches), RowGenerator(seed, "train", step)


@torch.no_grad()
def _look(net: dict[str, Any], flow: Flow, dataset: Dataset, gaussian: Tensor) -> None:
    """Measures a network; also its gain over the Gaussian's test values if it is the best look."""
    split = dataset.split("validation")
    nll = -float(log_probs(flow, split).mean())
    latent = flow.to_latent(torch.cat([batch.x for batch in split.batches(1000)]))
    mass = latent_statistics(latent)["latent/mean_norm2"] / split.width
    if math.isfinite(nll) and nll <= min(net["nll"], default=nll):
        net["gain"] = float((log_probs(flow, dataset.split("test")) - gaussian).numpy().mean())
    net["nll"].append(nll if math.isfinite(nll) else math.inf)
    net["mass"].append(mass if math.isfinite(mass) else math.inf)


class Member(NamedTuple):
    """A network at its start, Adam's learning rate, and the place of its rows in a step."""

    flow: Flow
    rate: float
    batch: int = 0


class Stack:
    """Trainings of flows with equal layers by Adam under a cosine, with averaged weights.

    A step costs 1/2 to 1/3 of separate steps at D = 64, and as much as they at D = 784. The
    objective may use no random numbers but those of its ``RowGenerator``.
    """

    def __init__(self, members: Sequence[Member], objective: Objective, *, steps: int) -> None:
        self._modules = [LossModule(copy.deepcopy(m.flow), Loss(objective)) for m in members]
        self._nets = [dict(module.named_parameters()) for module in self._modules]
        self._averages = [[p.detach().clone() for p in net.values()] for net in self._nets]
        self._buffers = stack_module_state(self._modules)[1]
        self._places = torch.tensor([member.batch for member in members])
        groups = [
            {"params": [*net.values()], "lr": member.rate}
            for net, member in zip(self._nets, members, strict=True)
        ]
        self._optimizer = torch.optim.Adam(groups, fused=True)
        self._schedule = LambdaLR(self._optimizer, lambda step: cosine(step / steps))
        self.step, self.steps = 0, steps

    def train_step(self, batches: Tensor, generator: RowGenerator) -> Tensor:
        """Does one step of every network; returns their mean losses before it, with shape (N,).

        ``batches`` has shape (K, B, *event). All networks share the generator's numbers.
        """
        progress = Progress(self.step, self.step / self.steps)
        weights = {name: torch.stack([net[name] for net in self._nets]) for name in self._nets[0]}

        def loss(weights: dict[str, Tensor], buffers: dict[str, Tensor], place: Tensor) -> Tensor:
            inputs = (batches.index_select(0, place.view(1))[0], None, generator, progress)
            return functional_call(self._modules[0], (weights, buffers), inputs)[0].mean()

        losses = vmap(loss)(weights, self._buffers, self._places)
        self._optimizer.zero_grad()
        losses.sum().backward()
        self._optimizer.step()
        self._schedule.step()
        decay = min(DECAY, (1 + self.step) / (10 + self.step))
        for net, averages in zip(self._nets, self._averages, strict=True):
            torch._foreach_lerp_(averages, [p.detach() for p in net.values()], 1 - decay)
        self.step += 1
        return losses.detach()

    def flows(self) -> Iterator[Flow]:
        """Yields the networks with their averaged weights, in the order of the members."""
        for module, averages in zip(self._modules, self._averages, strict=True):
            flow = copy.deepcopy(module.flow)
            for parameter, average in zip(flow.parameters(), averages, strict=True):
                parameter.data.copy_(average)
            yield flow.eval()
