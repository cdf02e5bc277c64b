"""From prepared data to many small nets that were trained at once, measured on the way."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ebflow import objectives
from ebflow.architectures import dense
from ebflow.data.loader import Dataset
from ebflow.evaluation import latent_statistics, log_probs
from ebflow.flow import Flow
from ebflow.preprocessing import Preprocessing, gaussian
from ebflow.randomness import RowGenerator
from pipelines.config import ChainConfig, ObjectiveConfig, PreprocessConfig
from pipelines.paper.config import StackConfig
from pipelines.paper.stacking import Member, Stack
from pipelines.tracking import StageRun
from pipelines.training.preprocessing import baseline, fitted

NETS = "nets.parquet"
BATCH = 100

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


def stack(config: StackConfig, data: Path, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes ``nets.parquet``, which ``train`` returns."""
    torch.set_num_threads(config.threads)
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "training")
    nets = train(config, dataset)
    nets.to_parquet(output / NETS)
    run.log_metrics({"study/trainings": len(nets)})


def train(config: StackConfig, dataset: Dataset) -> pd.DataFrame:
    """Returns nets of every preprocessing, start and rate, and what was measured of them.

    The columns ``part``, ``width`` (D), ``activation``, ``objective``, ``preprocessing``, ``sign``
    (of the identity that linear layers start as), ``bias`` (the start of every offset) and
    ``rate`` are what nets of other seeds share. ``steps`` are those of the looks; ``nll`` (nats)
    and ``mass`` (squared latent mean an element) are of validation rows at each, inf where they
    are not finite. ``gaussian`` is the Gaussian's validation NLL; ``gain`` how far its mean test
    NLL is above that of the best look by validation, NaN if there is none.
    """
    chains = {
        name: fitted(ChainConfig(chain=PREPROCESSINGS[name]), dataset)
        for name in config.preprocessings
    }
    ways = product(config.preprocessings, config.starts, config.rates)
    nets = [
        {"preprocessing": name, "sign": sign, "bias": bias, "rate": rate, "nll": [], "mass": [],
         "gain": math.nan}
        for name, (sign, bias), rate in ways
    ]  # fmt: skip
    reference = partial(log_probs, gaussian(baseline(dataset, PreprocessConfig())))
    test, width = reference(dataset.split("test")), dataset.split("train").width
    trained = _stack(config, nets, width)
    for step, (batches, noise) in enumerate(_batches(config, dataset, chains)):
        if step in config.looks:
            for net, flow in zip(nets, trained.flows(), strict=True):
                _look(net, flow.preprocessed(chains[net["preprocessing"]]), dataset, test)
        if step < config.steps:
            trained.train_step(batches, noise)
    shared = {
        "part": config.part, "width": width, "activation": config.activation,
        "objective": config.trained_by, "seed": config.seed,
        "gaussian": -float(reference(dataset.split("validation")).mean()),
    }  # fmt: skip
    return pd.DataFrame([{**shared, **net, "steps": list(config.looks)} for net in nets])


def _stack(config: StackConfig, nets: list[dict[str, Any]], width: int) -> Stack:
    options = ACTIVATIONS[config.activation]
    members = [
        Member(
            dense((width,), sign=net["sign"], bias=net["bias"], **options),
            net["rate"],
            config.preprocessings.index(net["preprocessing"]),
        )
        for net in nets
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
    config: StackConfig, dataset: Dataset, chains: Mapping[str, Preprocessing]
) -> Iterator[tuple[Tensor, RowGenerator]]:
    """Yields for every step, and once more, a batch by every preprocessing, and the noise."""
    split, seed = dataset.split("train"), config.seed
    shuffled = split.shuffled(BATCH, seed=seed)
    flows = [Flow((split.width,), []).preprocessed(chain) for chain in chains.values()]
    for step in range(config.steps + 1):
        x = next(shuffled).x
        with torch.no_grad():
            found = [flow.preprocess(x, RowGenerator(seed, "dequantise", step)) for flow in flows]
        yield torch.stack(found), RowGenerator(seed, "train", step)


@torch.no_grad()
def _look(net: dict[str, Any], flow: Flow, dataset: Dataset, gaussian: Tensor) -> None:
    """Measures a net; its gain over the Gaussian's test log-densities too if it is the best."""
    split = dataset.split("validation")
    nll = _finite(-float(log_probs(flow, split).mean()))
    latent = flow.to_latent(torch.cat([batch.x for batch in split.batches(1000)]))
    mass = _finite(latent_statistics(latent)["latent/mean_norm2"])
    if math.isfinite(nll) and nll <= min(net["nll"], default=nll):
        net["gain"] = float((log_probs(flow, dataset.split("test")) - gaussian).numpy().mean())
    net["nll"].append(nll)
    net["mass"].append(mass / split.width)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
